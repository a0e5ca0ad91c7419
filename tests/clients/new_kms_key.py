"""Makes a root key in the AWS KMS that TEST_KMS_ENDPOINT names, and prints its ARN."""

import os

import boto3

kms = boto3.client("kms", endpoint_url=os.environ["TEST_KMS_ENDPOINT"], region_name="us-east-1")
print(kms.create_key(Description="Strongroom's root key")["KeyMetadata"]["Arn"], end="")
