from typing import final

from typing_extensions import Buffer

from mediaflow._dsp.findings import VadResult
from mediaflow._dsp.stage import Stage

@final
class EnergyVad(Stage):
    def __init__(
        self,
        rate: int,
        *,
        frame_ms: int = 20,
        start_db: float = 5.0,
        stop_db: float = 3.5,
        silence_dbfs: float = -60.0,
        min_speech_ms: float = 60.0,
        hangover_ms: float = 100.0,
    ) -> None: ...
    @property
    def rate(self) -> int: ...
    @property
    def frame_samples(self) -> int: ...
    @property
    def speaking(self) -> bool: ...
    @property
    def floor_dbfs(self) -> float: ...
    def process(self, pcm: Buffer) -> VadResult: ...
    def flush(self) -> VadResult: ...
    def take(self) -> VadResult: ...
    def reset(self) -> None: ...
