"""The properties in the template, where no emulator applies them to what it creates."""

import re
from typing import Any

from cfnlint.decode import decode

from randusers_assets_tests.deploy.emulators import TEMPLATE


def template() -> Any:  # noqa: ANN401  # JSON
    """The template as it is written."""
    return decode(str(TEMPLATE))[0]


def properties_of(resource: str, **parameters: str) -> Any:  # noqa: ANN401  # JSON
    """A resource's properties, with its conditions decided and these parameters filled in."""
    written = template()
    values = {name: known.get("Default", "") for name, known in written["Parameters"].items()}
    values |= parameters

    def resolve(node: Any) -> Any:  # noqa: ANN401  # JSON
        match node:
            case {"Ref": name}:
                return values.get(name)  # None for AWS::NoValue
            case {"Fn::Sub": text}:
                return re.sub(r"\$\{(\w+)\}", lambda named: values[named[1]], text)
            case {"Fn::If": [name, yes, no]}:
                return resolve(yes if resolve(written["Conditions"][name]) else no)
            case {"Fn::Not": [one]}:
                return not resolve(one)
            case {"Fn::Equals": [one, other]}:
                return str(resolve(one)) == str(resolve(other))
            case dict():
                pairs = [(name, resolve(value)) for name, value in node.items()]
                return {name: value for name, value in pairs if value is not None}
            case list():
                return [value for value in map(resolve, node) if value is not None]
        return node

    return resolve(written["Resources"][resource]["Properties"])
