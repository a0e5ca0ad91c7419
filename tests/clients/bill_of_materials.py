"""Compares a bill of materials on standard input with the published schema of CycloneDX 1.6."""

import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
if error is not None:
    sys.exit(f"not CycloneDX 1.6: {error}")
