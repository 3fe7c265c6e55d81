"""What every service of this node shares. Pure.

service     the protocol of a service, and the duties of whoever runs it; dataplane/runner runs them
node        class Node: this node's id, its linked peers, their names, log lines, actions
actions     what services ask for: inject, send, pin, unpin, never forward, report
messages    the base of all messages between nodes, and their decoder by tag
timers      calls that are due later, without a clock
rates       token buckets, the only ones of the controller
counters    which counters exist from the start, and how ``status`` shows them
"""
