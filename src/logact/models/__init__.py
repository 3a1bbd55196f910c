"""The model door: what a driver asks, and who answers (a provider, a script, a recording).

Importing this package imports no provider's client: that happens at the first request to a provider.
"""

from logact.models.base import Image, Message, Model, ModelAnswer, ModelRequest
from logact.models.names import model_from_environment, model_from_name
from logact.models.provider import Price, ProviderModel
from logact.models.recorded import RecordedModel, RecordingModel
from logact.models.scripted import ScriptedModel, call, say

__all__ = [
    "Image",
    "Message",
    "Model",
    "ModelAnswer",
    "ModelRequest",
    "Price",
    "ProviderModel",
    "RecordedModel",
    "RecordingModel",
    "ScriptedModel",
    "call",
    "model_from_environment",
    "model_from_name",
    "say",
]
