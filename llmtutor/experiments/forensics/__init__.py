"""Chapter 24, forensics: a published model that saw its answers, rebuilt and repaired."""
