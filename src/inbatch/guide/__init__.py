"""The frozen guide, whose similarities show which in-batch negatives are false.

A guide never changes, so its embeddings are data: `StoredGuide` computes them once for each distinct
text and looks them up in every step of every run; `LiveGuide` embeds each batch again.
"""

from inbatch.guide.base import Guide, Process
from inbatch.guide.live import LiveGuide
from inbatch.guide.stored import StoredGuide

__all__ = ["Guide", "LiveGuide", "Process", "StoredGuide"]
