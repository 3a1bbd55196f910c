"""LogAct: reliable LLM agents through a shared log."""
