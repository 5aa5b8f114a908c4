"""A plug-in whose hook has a slip of the pen in its name."""

import dscc


@dscc.hookimpl
def dscc_pases():
    return []
