"""AgentDojo through the real LogAct path: recorded models, and an agent that obeys every injection."""
