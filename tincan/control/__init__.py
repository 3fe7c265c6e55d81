"""The socket on which the controller speaks to tincan.

messages     every request, reply and event
codec        JSON, typed and bounded
server       the socket itself
describe     what status tells of a link
"""
