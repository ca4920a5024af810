"""A checksum over what a notebook prints and shows, to detect changed outputs."""

import base64
import contextlib
import functools
import hashlib
import sys

KINDS = ("text/markdown", "image/png", "text/plain")  # what a page shows of an output
PNG_IN_BASE64 = "iVBORw0KGgo"  # how such an image begins


class Outputs:
    """The checksum so far, over printed text and over displayed text, images, their file names and alt texts."""

    def __init__(self):
        self._printed, self._displayed = hashlib.sha256(), hashlib.sha256()

    def add_text(self, text):
        """Add what was printed, in any number of pieces."""
        self._printed.update(text.encode(errors="replace"))

    def add_display(self, data, metadata):
        """Add what was displayed, {MIME type: content}; images may be bytes or base64."""
        parts = [data.get(kind, "") for kind in KINDS] + [metadata.get(name, "") for name in ("filename", "alt")]
        for part in parts:
            self._displayed.update(hashlib.sha256(_as_bytes(part)).digest())

    def sha256(self):
        return hashlib.sha256(self._printed.digest() + self._displayed.digest()).hexdigest()


def _as_bytes(content):
    """Text, or the bytes of an image, in base64 or not."""
    if isinstance(content, str) and content.startswith(PNG_IN_BASE64):
        with contextlib.suppress(ValueError):
            content = base64.b64decode(content)
    return content if isinstance(content, bytes) else str(content).encode(errors="replace")


def listen(shell):
    """The Outputs of all that an IPython shell prints and shows from now on, until the next call."""
    outputs = Outputs()
    publish = getattr(shell.display_pub.publish, "__wrapped__", shell.display_pub.publish)
    write_value = getattr(shell.displayhook.write_format_data, "__wrapped__", shell.displayhook.write_format_data)

    @functools.wraps(publish)
    def publish_heard(data, metadata=None, **options):
        outputs.add_display(data, metadata or {})
        return publish(data, metadata, **options)

    @functools.wraps(write_value)
    def write_value_heard(format_dict, md_dict=None):
        outputs.add_display(format_dict, md_dict or {})
        return write_value(format_dict, md_dict)

    shell.display_pub.publish, shell.displayhook.write_format_data = publish_heard, write_value_heard
    sys.stdout = _Heard(getattr(sys.stdout, "heard_stream", sys.stdout), outputs)
    return outputs


class _Heard:
    """A stream that also passes to `outputs` what is written to it."""

    def __init__(self, stream, outputs):
        self.heard_stream, self._outputs = stream, outputs

    def write(self, text):
        self._outputs.add_text(text)
        return self.heard_stream.write(text)

    def __getattr__(self, name):
        return getattr(self.heard_stream, name)
