"""Checks that the array's S3 endpoint answers and accepts the credentials for the bucket.

The server may be any S3: path-style addresses, and only the required checksums, because third-party servers store the
newer trailers as data (https://github.com/boto/boto3/issues/4435).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from config.models import ObjectStoreSettings

ASK_SECONDS = 5  # limit for a small request
SEND_SECONDS = 60  # limit for a part of some MiB on a busy array
CONNECTIONS = 32  # several backups, each with parts in flight


def session() -> Any:
    """Create a boto3 session that reads nothing from `AWS_*` variables or from files below ~/.aws.

    They could change the profile, the region, checksums, retries and the way a bucket is addressed. The variables stay
    in the process: credential plugins of a kubeconfig may need them. AWS_CA_BUNDLE is used, because a site has no other
    way to name its own certificate authority.
    https://boto3.amazonaws.com/v1/documentation/api/latest/guide/configuration.html
    """
    import boto3
    from botocore import configprovider, session

    variables = {
        **session.Session.SESSION_VARIABLES,
        **configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES,  # spelt so in botocore
    }
    files = {"config_file", "credentials_file"}
    isolated = {
        name: (None, None, os.devnull if name in files else default, convert)
        for name, (_, _, default, convert) in variables.items()
    }
    isolated["ca_bundle"] = variables["ca_bundle"]
    return boto3.Session(botocore_session=session.Session(session_vars=isolated))


def connect(
    store: ObjectStoreSettings,
    credentials: Mapping[str, str],
    *,
    read_seconds: float = ASK_SECONDS,
    attempts: int = 2,
) -> Any:
    """Create a boto3 client for the endpoint.

    Args:
        store: its address.
        credentials: `access-key` and `secret-key`.
        read_seconds: limit for an answer.
        attempts: attempts for each request that fails for a temporary reason.
    """
    from botocore.config import Config

    return session().client(
        "s3",
        endpoint_url=str(store.endpoint),
        region_name=store.region,
        aws_access_key_id=credentials.get("access-key"),
        aws_secret_access_key=credentials.get("secret-key"),
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=ASK_SECONDS,
            read_timeout=read_seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=CONNECTIONS,
        ),
    )


def check_endpoint(store: ObjectStoreSettings, credentials: Mapping[str, str]) -> str:
    """Return what is wrong with endpoint, bucket or credentials; "" if nothing is."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        connect(store, credentials).head_bucket(Bucket=store.bucket)
    except ClientError as exc:
        code = exc.response["ResponseMetadata"]["HTTPStatusCode"]
        causes = {403: "the store refused the credentials", 404: "the bucket does not exist"}
        return f"{store.endpoint}, bucket {store.bucket}: {causes.get(code, f'HTTP {code}')}"
    except (BotoCoreError, ValueError) as exc:
        return f"{store.endpoint}: {exc}"
    return ""
