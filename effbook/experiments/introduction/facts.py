"""Public facts behind Figure 1.1: how large language models are, and what their training took.

Each number is one that the source states. Where a source states no training compute but the number of tokens seen,
compute is 6 x parameters x tokens (two operations a parameter and token forward, four backward); where it states
neither, there is none. Listed are dense models, and one sparse one that the fits leave out: of its 1571 billion
parameters a token passes only a few.
"""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class LanguageModel:
    """One model: when its report appeared, its parameters, training tokens and stated FLOPs, and where they stand."""

    name: str
    published: date
    parameters: float
    tokens: float | None
    stated_flop: float | None
    source: str
    dense: bool = True

    @property
    def training_flop(self) -> float | None:
        """As stated, else 6 x parameters x tokens, else None."""
        if self.stated_flop is not None:
            return self.stated_flop
        return None if self.tokens is None else 6 * self.parameters * self.tokens


PETAFLOP_S_DAY = 1e15 * 86_400
GPT3 = "arXiv:2005.14165, Table D.1"

LANGUAGE_MODELS = (
    LanguageModel("Transformer", date(2017, 6, 12), 213e6, None, 2.3e19, "arXiv:1706.03762, Tables 2 and 3 (big)"),
    LanguageModel("GPT", date(2018, 6, 11), 117e6, None, 0.96 * PETAFLOP_S_DAY, "its authors' announcement"),
    LanguageModel("BERT-Large", date(2018, 10, 11), 340e6, None, 5.33e20, f"arXiv:1810.04805, section 3; {GPT3}"),
    LanguageModel("GPT-2", date(2019, 2, 14), 1542e6, None, None, "Radford et al. 2019, Table 2"),
    LanguageModel("RoBERTa-Large", date(2019, 7, 26), 355e6, None, 4.26e21, f"arXiv:1907.11692, section 5; {GPT3}"),
    LanguageModel("Megatron-LM", date(2019, 9, 17), 8.3e9, None, None, "arXiv:1909.08053, abstract"),
    LanguageModel("T5-11B", date(2019, 10, 23), 11e9, None, 3.30e22, f"arXiv:1910.10683, section 3.7; {GPT3}"),
    LanguageModel("Turing-NLG", date(2020, 2, 13), 17e9, None, None, "its authors' announcement"),
    LanguageModel("GPT-3", date(2020, 5, 28), 175e9, 300e9, 3.14e23, GPT3),
    LanguageModel("Switch-C", date(2021, 1, 11), 1571e9, None, None, "arXiv:2101.03961, Table 9", dense=False),
    LanguageModel("Megatron-Turing NLG", date(2021, 10, 11), 530e9, 270e9, None, "arXiv:2201.11990, sections 1 and 3"),
    LanguageModel("Gopher", date(2021, 12, 8), 280e9, 300e9, 5.76e23, "arXiv:2112.11446; FLOPs: arXiv:2203.15556"),
    LanguageModel("Chinchilla", date(2022, 3, 29), 70e9, 1.4e12, 5.76e23, "arXiv:2203.15556, sections 1 and 4"),
    LanguageModel("PaLM", date(2022, 4, 5), 540e9, 780e9, None, "arXiv:2204.02311, abstract and section 5"),
    LanguageModel("OPT-175B", date(2022, 5, 2), 175e9, 180e9, None, "arXiv:2205.01068, section 2"),
    LanguageModel("BLOOM", date(2022, 11, 9), 176e9, 366e9, None, "arXiv:2211.05100, section 3"),
    LanguageModel("LLaMA-65B", date(2023, 2, 27), 65.2e9, 1.4e12, None, "arXiv:2302.13971, Table 2"),
    LanguageModel("Llama-2-70B", date(2023, 7, 18), 70e9, 2.0e12, None, "arXiv:2307.09288, Table 1"),
    LanguageModel("Falcon-180B", date(2023, 11, 28), 180e9, 3.5e12, None, "arXiv:2311.16867, abstract"),
    LanguageModel("Llama-3.1-405B", date(2024, 7, 23), 405e9, 15.6e12, 3.8e25, "arXiv:2407.21783, section 1"),
)
ALEXNET_PARAMETERS = 60e6  # Krizhevsky et al. 2012, abstract
MOORE_MONTHS = 24.0  # transistors a chip double every two years: G. Moore, IEDM 1975
