"""Ten lines round your own tools. Kill it at any moment and run it again: it goes on where it was."""

from logact import ActionInterceptor, ActionRule, LogActAgent, ScriptedModel, open_log, tool
from logact.errors import RunFinished
from logact.models import call, say


@tool(effect="irreversible")
def refund(order: str, cents: int) -> str:
    """Send money back to a customer."""
    return f"refunded {cents} cents for {order}"


model = ScriptedModel([call("refund", order="A17", cents=1250), say("Order A17 is refunded.")])
small = ActionRule("small-refunds", "allow", tool="refund", arguments={"cents": {"max": 5000}})
voters = [ActionInterceptor([small, ActionRule("answers", "allow", tool="answer")], default="deny")]
agent = LogActAgent("ops", log=open_log("sqlite:///quickstart.db"), model=model, tools=[refund], voters=voters)

try:
    print(agent.run_sync("Refund order A17").text)
except RunFinished as finished:
    print(finished)
