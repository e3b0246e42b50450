"""A certificate authority for one run of the stand-in hub, made by the openssl program.

Besides the good certificate there are wrong ones, made when they are first asked for.
"""

import os
import ssl
import subprocess
import threading

NAMES = "DNS:localhost,IP:127.0.0.1,IP:127.0.0.2,IP:127.0.0.3,IP:::1"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
WRONG = ("other-ca", "self-signed", "wrong-host", "expired", "not-yet")

# `openssl ca` is the only command of OpenSSL 3.0 that takes dates.
_CA_CONFIG = """
[ca]
default_ca = hub
[hub]
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
email_in_dn = no
rand_serial = yes
unique_subject = no
[any]
commonName = supplied
"""


def _openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise OSError(f"openssl {arguments[0]}: {done.stderr.decode(errors='replace')}")


class Certificates:
    """Files below `folder`, and the contexts made of them."""

    def __init__(self, folder):
        self.folder = folder
        self.ca = self._path("ca.pem")
        self._contexts = {}
        self._lock = threading.Lock()
        self._make_ca("ca")
        self.context("good")

    def _path(self, name):
        return os.path.join(self.folder, name)

    def _make_ca(self, name):
        _openssl("req", "-x509", *NEW_KEY, "-keyout", self._path(f"{name}.key"),
                 "-out", self._path(f"{name}.pem"), "-days", "30",
                 "-subj", f"/CN=airllm test {name}",
                 "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def _make(self, name, ca="ca", names=NAMES, start=None, end=None):
        """A key and a certificate of `ca` in one file."""
        request, certificate = self._path(f"{name}.csr"), self._path(f"{name}.crt")
        key, extensions = self._path(f"{name}.key"), self._path(f"{name}.ext")
        _openssl("req", "-new", *NEW_KEY, "-keyout", key, "-out", request,
                 "-subj", "/CN=stand-in hub")
        with open(extensions, "w", encoding="ascii") as file:
            file.write(f"subjectAltName = {names}\nextendedKeyUsage = serverAuth\n")
        if start is None:
            _openssl("x509", "-req", "-in", request, "-CA", self._path(f"{ca}.pem"), "-CAkey",
                     self._path(f"{ca}.key"), "-days", "30", "-extfile", extensions,
                     "-out", certificate)
        else:
            with open(self._path("ca.cnf"), "w", encoding="utf-8") as file:
                file.write(_CA_CONFIG.format(folder=self.folder))
            with open(self._path("index.txt"), "a", encoding="ascii"):
                pass
            _openssl("ca", "-batch", "-notext", "-config", self._path("ca.cnf"), "-in", request,
                     "-cert", self._path(f"{ca}.pem"), "-keyfile", self._path(f"{ca}.key"),
                     "-startdate", start, "-enddate", end, "-extfile", extensions,
                     "-out", certificate)
        with open(self._path(f"{name}.pem"), "wb") as file:
            for part in (key, certificate):
                with open(part, "rb") as piece:
                    file.write(piece.read())

    def _make_wrong(self, name):
        if name == "other-ca":
            self._make_ca("other")
            self._make(name, ca="other")
        elif name == "self-signed":
            _openssl("req", "-x509", *NEW_KEY, "-keyout", self._path(f"{name}.key"),
                     "-out", self._path(f"{name}.crt"), "-days", "30",
                     "-subj", "/CN=stand-in hub", "-addext", f"subjectAltName={NAMES}")
            with open(self._path(f"{name}.pem"), "wb") as file:
                for part in ("key", "crt"):
                    with open(self._path(f"{name}.{part}"), "rb") as piece:
                        file.write(piece.read())
        elif name == "wrong-host":
            self._make(name, names="DNS:elsewhere.example")
        elif name == "expired":
            self._make(name, start="20200101000000Z", end="20210101000000Z")
        elif name == "not-yet":
            self._make(name, start="20900101000000Z", end="20910101000000Z")
        else:
            raise ValueError(f"no certificate is called {name!r}; there are {', '.join(WRONG)}")

    def context(self, name):
        """A server's context with the certificate `good` or one of WRONG."""
        with self._lock:
            return self._context(name)

    def _context(self, name):
        if name not in self._contexts:
            if name == "good":
                self._make(name)
            else:
                self._make_wrong(name)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._path(f"{name}.pem"))
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[name] = context
        return self._contexts[name]
