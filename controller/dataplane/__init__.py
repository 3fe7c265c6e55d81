"""The controller's side of tincan.

process      starts it
client       the socket to it: requests, notifications, events
runner       runs the services: carries out their actions, arms their timer
"""
