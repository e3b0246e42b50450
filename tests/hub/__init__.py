"""The stand-in hub: a server on loopback that speaks the Hugging Face Hub protocol, right or wrong.

    from hub import Hub
    with Hub() as hub:
        hub.add_repo("acme/tiny", folder)
        hub.fault("cut", path="*.safetensors", after=1 << 20)
        run(..., env={**os.environ, **hub.env(token="hf_alice")})
        assert hub.token_origins() <= {"hub"}

README.md in this folder says what it does and how fast it is.
"""

from .faults import HOSTILE_LISTINGS, HOSTILE_NAMES, hostile_listing
from .repos import Blob, DiskFile, ManyFiles, Zeros
from .server import Hub, User

__all__ = ["Blob", "DiskFile", "HOSTILE_LISTINGS", "HOSTILE_NAMES", "Hub", "ManyFiles", "User",
           "Zeros", "hostile_listing"]
