"""The user's configuration: a file becomes a frozen ``Config``, or one line about what is wrong.

load        load(file) -> Config: all keys, and what they may be together; called by cli
settings    the Config and its parts, a docstring for each field
text        reading the file, JSON and YAML; the only import of yaml
values      checks of single values                                          (pure)
endpoint    HOST:PORT, the value and its two parsers; also used by signal     (pure)
ipop        what becomes of the keys and levels of IPOP's configuration       (pure)
"""
