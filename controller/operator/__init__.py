"""What the operator asks and is told.

protocol    the messages of the control socket, and the side that asks; called by cli
server      the side that answers, in the controller
report      the answers, put together from Sources that app provides
status      the shapes of the answers: a public interface                     (pure)
paths       the sentences that explain a link's path                          (pure)
tables      the answers as tables for people; the only import of rich
"""
