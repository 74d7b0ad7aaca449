"""A learner's own copy of the chapters: handed out, brought up to date, never overwritten."""
