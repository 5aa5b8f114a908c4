"""Schedule rules for devices that run blocks of threads: what they share is here, the rules are in rules/."""
