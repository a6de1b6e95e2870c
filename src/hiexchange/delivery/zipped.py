"""Zip archives encrypted with a password (AES-256; pyzipper, extra ``zip``), for who cannot do OpenPGP.

The password is a credential of the channel, agreed on by another way than the files. The classic zip cipher is
broken and is not offered: 7-Zip, WinZip and macOS archivers read AES, the Windows Explorer does not.
"""

from __future__ import annotations

import io
from pathlib import Path

from hiexchange.delivery.channel import ChannelSpec
from hiexchange.delivery.credentials import secret
from hiexchange.errors import ConfigError, MissingExtra

LEAST = 12
"""Characters of a password: an archive can be guessed at for as long as one likes."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def encrypt(payload: bytes, spec: ChannelSpec, name: str) -> bytes:
    """Return an archive that holds ``payload`` as ``name``; the salt is random, so no two are alike.

    Raises:
        ConfigError: The password cannot be read or is too short: nothing is sealed for the channel until then.
        MissingExtra: pyzipper is not installed.
    """
    try:
        import pyzipper
    except ImportError:
        raise MissingExtra("zip", "zip encryption") from None
    password = secret(spec, "zip_password", Path(spec.credentials_base)) or ""
    if len(password) < LEAST:
        raise ConfigError(f"the zip password of {spec.key} is shorter than {LEAST} characters")
    buffer = io.BytesIO()
    with pyzipper.AESZipFile(buffer, "w", compression=pyzipper.ZIP_DEFLATED, encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(password.encode())
        # The clock is left out, as in every file.
        archive.writestr(pyzipper.zipfile_aes.AESZipInfo(name, _EPOCH), payload)
    return buffer.getvalue()
