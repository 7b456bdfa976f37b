"""How the chats that the built-in model is trained on are mixed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the chats of each kind; what remains are chats about facts.

    Small talk is over-represented for its number of intents because people open with it. Tool chats
    are long, so their share of the tokens is about three times that of the chats.

    Attributes:
        tools: With any tools and any values.
        page_tools: With the chat page's tools and values that training repeats.
        copying: Drills of copying.
        smalltalk: About Leadline, itself, and nothing in particular.
        unknown: Questions to decline.
        thinking: With a thought before the last answer.
    """

    tools: float = 0.16
    page_tools: float = 0.0
    copying: float = 0.2
    smalltalk: float = 0.09
    unknown: float = 0.04
    thinking: float = 0.09


DEFAULT_SHARES = Shares()
SHIPPED_SHARES = Shares(tools=0.0, page_tools=0.26, copying=0.0, thinking=0.13)  # of the weights
