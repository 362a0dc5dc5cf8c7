"""One token: its module, one login session, one lock around every call.

PKCS#11 modules are foreign native code with rules of their own, kept here: python-pkcs11
initialises them for one thread at a time, so every call of this process is under one lock;
after a fork nothing may be called; a module that lost its token finds it again only after
it is initialised anew; a login is of the whole process, so no session ever logs out, it is
closed. A call that meets a lost token is made once more on a new session.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

import pkcs11
from pkcs11 import Attribute, ObjectClass, TokenFlag
from pkcs11.exceptions import PKCS11Error, TokenNotPresent, TokenNotRecognised

from ..errors import (
    ForkedProcessError,
    KeyNotFoundError,
    LockedOutError,
    ProviderError,
    UnavailableError,
    UnsafePermissionsError,
)
from .pkcs11_calls import CallError, Calls
from .pkcs11_errors import (
    LOCKED,
    PIN,
    KeyMissingError,
    failure,
    is_already_logged_in,
    is_lost,
    is_wrong_pin,
    translated,
)
from .pkcs11_pin import PinSource
from .pkcs11_uri import TokenUri

_T = TypeVar("_T")

LOCK = threading.RLock()
"""Around every call into any module."""


class Module:
    """A loaded module. Modules are shared by everything in a process, and stay loaded."""

    _loaded: ClassVar[dict[Path, Module]] = {}
    _forked: ClassVar[bool] = False

    def __init__(self, path: Path) -> None:
        self.calls = Calls(path)
        self.lib = pkcs11.lib(str(path))
        self.generation = 0
        """How often it was initialised anew; every session of an earlier time is gone."""

    @classmethod
    def load(cls, path: Path) -> Module:
        """Loads a module, once. `NotAModuleError` where it is none; `UnsafePermissionsError`
        where others could have put another program there."""
        cls.check_process()
        if path not in cls._loaded:
            with contextlib.suppress(OSError):  # loading it will say what is wrong
                if stat.S_IMODE(path.stat().st_mode) & 0o022:
                    raise UnsafePermissionsError(
                        f"others can replace the module {path}", hint=f"chmod go-w {path}"
                    )
            cls._loaded[path] = cls(path)
        return cls._loaded[path]

    @classmethod
    def check_process(cls) -> None:
        """`ForkedProcessError` in a child of a process that had loaded a module."""
        if cls._forked:
            raise ForkedProcessError(
                "this process was forked from one that uses a PKCS#11 module",
                hint="open the device in the child only, or start it with"
                " multiprocessing's method 'spawn'",
            )

    @classmethod
    def _mark_forked(cls) -> None:
        cls._forked = bool(cls._loaded)

    def reset(self) -> None:
        """Initialises it anew. Sessions of other tokens in it notice, and are opened anew."""
        self.generation += 1
        with contextlib.suppress(PKCS11Error):
            self.lib.finalize()
        self.lib.initialize()


os.register_at_fork(after_in_child=Module._mark_forked)


def handle_of(what: pkcs11.Session | pkcs11.Object) -> int:
    """Its number in the module; python-pkcs11's types leave it out."""
    handle: int = what.handle  # type: ignore[union-attr, assignment]
    return handle


class Live:
    """A session that is logged in, and the objects found with it. Used under the lock."""

    def __init__(self, module: Module, session: pkcs11.Session) -> None:
        self.calls = module.calls
        self.session = session
        self.handle = handle_of(session)
        self.generation = module.generation
        self._found: dict[tuple[ObjectClass, bytes], pkcs11.Object] = {}

    def find(self, kind: ObjectClass, key_id: bytes) -> pkcs11.Object:
        """The one object with this id. `KeyMissingError` where there is none, or more."""
        wanted = kind, key_id
        if wanted not in self._found:
            found = self.search({Attribute.CLASS: kind, Attribute.ID: key_id})
            if len(found) != 1:
                raise KeyMissingError(f"{len(found)} objects have the id {key_id.hex()}")
            self._found[wanted] = found[0]
        return self._found[wanted]

    def search(self, template: dict[Attribute, object]) -> list[pkcs11.Object]:
        """Every object with these attributes."""
        # python-pkcs11 does not let go of a search that could not begin: it ends it whenever
        # the garbage collector comes, outside the lock. So one is begun here first.
        self.calls.check_search(self.handle)
        return list(self.session.get_objects(template))

    def mechanisms(self) -> frozenset[int]:
        """What the token says that it can do."""
        return frozenset(map(int, self.session.token.slot.get_mechanisms()))


class Token:
    """The token of a URI: found, opened and logged in to by its first use."""

    def __init__(self, uri: TokenUri, pin: PinSource) -> None:
        self.uri = uri
        self._pin = pin
        with LOCK, translated(str(uri)):
            self._module = Module.load(uri.module)
        self._live: Live | None = None
        self._lost_in: int | None = None
        self._refused = False
        self._closed = False

    def run(self, operation: Callable[[Live], _T]) -> _T:
        """Runs an operation on the session, and once more if the token was lost meanwhile.

        Every error of the module becomes one of this package: see `pkcs11_errors`.
        """
        self._module.check_process()  # before the lock, which a fork may have left taken
        with LOCK, translated(str(self.uri)):
            self._check_open()
            try:
                return operation(self._connected())
            except (PKCS11Error, CallError, KeyMissingError) as error:
                if not is_lost(error) or self._refused:
                    raise
            self._drop()
            try:
                return operation(self._connected())
            except (PKCS11Error, CallError, KeyMissingError):
                self._drop()  # the next call looks for the token anew
                raise

    def close(self) -> None:
        """Closes the session; idempotent. The token logs out with the process's last one."""
        if not self._module._forked:
            with LOCK:
                self._closed = True
                self._drop()

    def _connected(self) -> Live:
        if self._refused:
            raise failure(PIN, str(self.uri))
        if self._live is None or self._live.generation != self._module.generation:
            if self._lost_in == self._module.generation:
                self._module.reset()
            self._lost_in = self._module.generation  # unless the next line succeeds
            self._live = self._connect()
            self._lost_in = None
        return self._live

    def _drop(self) -> None:
        live, self._live = self._live, None
        self._lost_in = self._module.generation
        if live is not None and live.generation == self._module.generation:
            with contextlib.suppress(PKCS11Error):
                live.session.close()

    def _connect(self) -> Live:
        token = self._find_token()
        session = token.open(rw=not token.flags & TokenFlag.WRITE_PROTECTED)
        try:
            self._login(token, session)
        except BaseException:
            with contextlib.suppress(PKCS11Error):
                session.close()
            raise
        return Live(self._module, session)

    def _find_token(self) -> pkcs11.Token:
        there = []
        for slot in self._module.lib.get_slots(token_present=True):
            with contextlib.suppress(TokenNotPresent, TokenNotRecognised):
                token = slot.get_token()
                if token.flags & TokenFlag.TOKEN_INITIALIZED:
                    there.append(token)
        matching = [token for token in there if self._matches(token)]
        if len(matching) == 1:
            return matching[0]
        labels = ", ".join(sorted(f"{str(t.label)[:40]!r}" for t in there)) or "none"
        if matching:
            raise KeyNotFoundError(
                f"more than one token is {self.uri}", hint="add serial= to the URI"
            )
        raise UnavailableError(
            f"there is no {self.uri}",
            hint=f"plug it in, or correct the URI; tokens that are there: {labels}",
            native="TokenNotPresent" if not there else "",
        )

    def _matches(self, token: pkcs11.Token) -> bool:
        wanted = (
            (self.uri.token, token.label),
            (self.uri.serial, token.serial.decode("utf-8", "replace")),
            (self.uri.manufacturer, token.manufacturer_id),
            (self.uri.model, token.model),
        )
        return all(said is None or said == found.rstrip(" \0") for said, found in wanted)

    def _login(self, token: pkcs11.Token, session: pkcs11.Session) -> None:
        if not token.flags & TokenFlag.LOGIN_REQUIRED:
            return
        if token.flags & TokenFlag.USER_PIN_LOCKED:
            raise failure(LOCKED, str(self.uri))
        if token.flags & TokenFlag.USER_PIN_FINAL_TRY:
            # A wrong PIN now would lock the token, and who is here may not know it.
            raise LockedOutError(
                f"one wrong PIN more locks the token: {self.uri}",
                hint="log in to it once with its own tool, which sets its counter back:"
                f" pkcs11-tool --module {self.uri.module} --login --list-objects",
            )
        with self._pin() as (pin, length):
            try:
                self._module.calls.login(handle_of(session), pin, length)
            except CallError as error:
                self._refused = is_wrong_pin(error)
                if not is_already_logged_in(error):
                    raise

    def _check_open(self) -> None:
        if self._closed:
            raise ProviderError("the provider is closed")
