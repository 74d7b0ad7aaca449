"""Drawings in one visual language, as SVG that follows light and dark pages."""
