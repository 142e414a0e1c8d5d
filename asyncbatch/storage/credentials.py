"""S3 credentials from the shared AWS files.

The object store library does not read these files. It reads the environment (keys, a web identity)
and queries the metadata services of containers and instances. The shared files `~/.aws/credentials`
and `~/.aws/config` come between the two. boto3 reads them in full, if it is installed; without it,
only plain keys are read.
"""

from __future__ import annotations

import os
from configparser import ConfigParser, Error
from typing import Any

from asyncbatch.core.system import package_command
from asyncbatch.errors import UsageError

# variables that the library reads itself, and that take precedence over a profile
_PRECEDING_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


def s3_credentials(*, anonymous: bool) -> dict[str, Any]:
    """Return the options for the library: credentials or their provider, and a region.

    Raises UsageError for a profile that does not exist, or that needs boto3.
    """
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    profile = _profile(name or "default")
    options: dict[str, Any] = {}
    if "region" in profile and not any(map(os.environ.get, _REGIONS)):
        options["region"] = profile["region"]
    if anonymous or any(map(os.environ.get, _PRECEDING_VARIABLES)):
        return options
    if name is not None and not profile:
        raise UsageError(f"there is no profile {name!r} (AWS_PROFILE) in the shared AWS files")
    keys = {ours: profile[theirs] for theirs, ours in _KEYS.items() if theirs in profile}
    if "access_key_id" in keys:
        return options | keys
    if profile.keys() & {"role_arn", "sso_session", "sso_start_url", "credential_process"}:
        options["credential_provider"] = _boto3_provider(name or "default")
    return options


def _profile(name: str) -> dict[str, str]:
    """Return the keys of a profile. The credentials file takes precedence."""
    config = os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")
    shared = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    section = name if name == "default" else f"profile {name}"
    return _section(config, section) | _section(shared, name)


def _section(path: str, name: str) -> dict[str, str]:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(os.path.expanduser(path), encoding="utf-8")
    except (Error, UnicodeDecodeError):  # the message may contain a secret of the file
        raise UsageError(f"{path} is not a valid file of AWS profiles") from None
    return dict(parser[name]) if parser.has_section(name) else {}


def _boto3_provider(profile: str) -> object:
    try:
        from boto3 import Session
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise UsageError(
            f"the AWS profile {profile!r} gets its credentials from a role, SSO or another program,"
            f" which needs boto3 ({package_command('boto3')}); or put credentials into the"
            " environment (aws configure export-credentials --format env)"
        ) from None
    try:
        return Boto3CredentialProvider(Session(profile_name=profile))
    except Exception as error:  # noqa: BLE001 - boto3's errors have no common base class, and may contain the output of a program
        raise UsageError(
            f"the AWS profile {profile!r} gives no credentials ({type(error).__name__}):"
            f" aws sts get-caller-identity --profile {profile} may show the reason"
        ) from None
