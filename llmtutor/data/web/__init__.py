"""Chapter 02, web pages: a sample of them, extraction of their text, rules of its quality."""

from llmtutor.data.web.extraction import Block, blocks, extract
from llmtutor.data.web.quality import RULES, Rule, failures
from llmtutor.data.web.sample import PAGES

__all__ = ["PAGES", "RULES", "Block", "Rule", "blocks", "extract", "failures"]
