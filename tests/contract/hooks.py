"""Checks of our own for schemathesis, which loads this file (SCHEMATHESIS_HOOKS).

What a schema allows must be taken, or refused for what a schema cannot say: 422 names a field and why
(a file that does not exist, bytes against characters). 400 is for what is no request at all, so a
well-formed one may get it only for the three things JSON and multipart allow and this server does not.
"""
import os

import schemathesis

OWN_KEY = os.environ["MP2_CONTRACT_KEY_ID"]
ALLOWED = {401, 403, 404, 409, 422, 429}
NOT_TAKEN = ("a number is out of range", "a string holds a NUL character", "malformed multipart body: part")


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Links lead from the list of keys to the one these requests use: revoked or rotated, all that came
    after it would be 401 and look at nothing."""
    if case.path_parameters.get("key") == OWN_KEY:
        case.path_parameters["key"] = "key_of_somebody_else"


@schemathesis.check
def taken_or_explained(ctx, response, case):
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive:
        return
    status = response.status_code
    if status < 400 or status in ALLOWED:
        return
    assert status == 400 and any(text in response.text for text in NOT_TAKEN), \
        f"of the right shape, but {status}: {response.text[:300]}"


@schemathesis.check
def says_why(ctx, response, case):
    """Every refusal has a body of its API's shape, and a busy one says when to come back."""
    if response.status_code < 400 or case.method.upper() == "HEAD":
        return
    body = response.json()
    assert body.get("error") and response.headers.get("x-request-id"), body
    if response.status_code in (429, 503):
        assert response.headers.get("retry-after"), response.headers
