"""evalkit: what did a re-integration instrument do, by month since its start?"""

__version__ = "0.1.0"
