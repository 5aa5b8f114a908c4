"""A plug-in that brings a front end under a name that is taken."""

import dscc


class Twin(dscc.Frontend):
    """Another reader of ONNX files."""

    name = "onnx"
    suffixes = (".onnx",)

    def load(self, model, options):
        raise NotImplementedError


@dscc.hookimpl
def dscc_frontends():
    return [Twin]
