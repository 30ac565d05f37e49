"""What a matcher is before it is asked anything: declared roles, an encoder, a calibration; and how it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, Unpack

from encoders import Encoder, load_encoder

from . import saving
from .calibration import Calibration
from .errors import CalibrationError, MatcherError
from .roles import RoleOptions, Roles
from .stored import check_encoder, find_calibration

DEFAULT_ENCODER = "ViT-B-32/laion2b_s34b_b79k"


class Declared:
    """The roles of the columns, an encoder that is loaded on first use, and what its cosines mean.

    Attributes:
        roles: Which column plays which part.
        spec: The encoder's spec.
        index: A built index to search and evaluate in, in place of response data; None for none.
    """

    def __init__(
        self,
        query: str = "caption",
        response: str = "image",
        encoder: str | Encoder = DEFAULT_ENCODER,
        *,
        device: str = "auto",
        precision: str = "auto",
        calibration: Calibration | None = None,
        **roles: Unpack[RoleOptions],
    ) -> None:
        """Declare what is matched.

        Args:
            query: The column that is asked with.
            response: The column that is looked for.
            encoder: The spec of an encoder, or an encoder.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            precision: `auto`, `fp32`, `bf16` or `fp16`.
            calibration: What cosines of this encoder mean; None looks for the stored one.
            **roles: `query_type`, `response_type`, `label`, `match_label`, `root`.

        Raises:
            MatcherError: The roles contradict each other.
        """
        self.roles = Roles(query=query, response=response, **roles)
        self.spec = encoder if isinstance(encoder, str) else encoder.spec
        self.index: Path | None = None
        self._placement = {"device": device, "precision": precision}
        self._encoder: Encoder | None = None if isinstance(encoder, str) else encoder
        self._calibration = calibration
        self._fit_report: Mapping[str, Any] = {}

    @classmethod
    def from_index(cls, path: str | Path, query: str = "caption", response: str = "image", **options: Any) -> Self:
        """Return a matcher with the encoder of a built index, which searches and evaluates in that index.

        Args:
            path: The folder of the index. Its images or texts, as `response_type` says, stand for the responses.
            query: The column that is asked with.
            response: The column that names item ids of the index, in relevance tables.
            **options: As in `Matcher`; an `encoder` is needed for indexes of ready-made vectors only.

        Raises:
            StorageError: There is no index.
            MatcherError: Nobody knows which encoder made it.
        """
        from storage import IndexStore

        with IndexStore.open(Path(path)).open_version(verify="size") as version:
            made_by = version.manifest.encoder
        if made_by is None and "encoder" not in options:
            raise MatcherError(f"the index {str(path)!r} holds ready-made vectors; name what made them: encoder=SPEC")
        if made_by is not None:
            options.setdefault("encoder", made_by.spec)
        matcher = cls(query, response, **options)
        matcher.index = Path(path)
        return matcher

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded on first use; `build_index(..., encoder=matcher.encoder)` takes it."""
        if self._encoder is None:
            self._encoder = load_encoder(self.spec, **self._placement)
        return self._encoder

    @property
    def calibration(self) -> Calibration:
        """What turns cosines into probabilities: the one given or fitted, else the stored one of the encoder.

        Raises:
            CalibrationError: There is none; the message says how to fit one.
        """
        if self._calibration is None:
            self._calibration = find_calibration(self.spec, self.encoder.fingerprint)
        return self._calibration

    def use(self, calibration: Calibration) -> None:
        """Judge by this calibration from now on.

        Raises:
            CalibrationError: It belongs to another encoder.
        """
        check_encoder(calibration, self.spec, self.encoder.fingerprint)
        self._calibration = calibration

    @property
    def fit_summary(self) -> Mapping[str, Any]:
        """What the last `fit` reported: figures before and after, seconds, why it stopped; empty before any."""
        return self._fit_report

    def save(self, path: str | Path, *, standalone: bool = False) -> Path:
        """Write the matcher to a new folder: `matcher.json` and, for a `local-dir:` encoder, its weights.

        Args:
            path: A folder that does not exist yet, or is empty.
            standalone: Write the weights of encoders that are known by name as well, so that loading needs no hub.

        Raises:
            MatcherError: The folder is not empty, or the encoder cannot be saved.
        """
        try:
            calibration: Calibration | None = self.calibration
        except CalibrationError:
            calibration = None
        saved = saving.Saved(
            roles={name: getattr(self.roles, name) for name in saving.ROLES},
            encoder=self.encoder.spec,
            fingerprint=self.encoder.fingerprint,
            calibration=calibration,
            fit=self.fit_summary,
        )
        return saving.save(saved, Path(path), standalone)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", precision: str = "auto") -> Self:
        """Return a matcher that `save` wrote; it gives the same vectors and probabilities.

        Raises:
            MatcherError: There is none, or the encoder is not the one that it was saved with.
        """
        saved = saving.read(Path(path))
        matcher = cls(
            encoder=saved.encoder,
            device=device,
            precision=precision,
            calibration=saved.calibration,
            **dict(saved.roles),
        )
        matcher._fit_report = saved.fit
        if matcher.encoder.fingerprint != saved.fingerprint:
            raise MatcherError(
                f"the matcher {str(path)!r} was saved with other weights than encoder {saved.encoder!r} has now; "
                "install the release it was saved with, and save it there with standalone=True"
            )
        return matcher

    def _become(self, spec: str, calibration: Calibration | None, report: Mapping[str, Any]) -> None:
        """Go on with another encoder, which is loaded when it is needed."""
        self.spec, self._encoder = spec, None
        self._calibration, self._fit_report = calibration, report
