"""Chapter 22, evaluation: which sentence is English? (BLiMP, Warstadt et al. 2020)

67 paradigms of a thousand minimal pairs, each about one rule of grammar. Both sentences are scored
whole, behind the start of a text and a space; no length is corrected for.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from llmtutor.checks import check_name
from llmtutor.evaluate.items import Item, choice
from llmtutor.evaluate.pairs import parse_pair, read_pairs
from llmtutor.tokenizer.files import utf8

FOLDER = "data"
"""Of the paradigms in the published archive."""


def read_blimp(path: Path, paradigms: Sequence[str] | None = None) -> list[Item]:
    """Pairs of the archive as it is published, or of one file of JSON lines.

    ``paradigms``, of the archive, are all 67 unless named. The good sentence is always the first
    answer.

    Raises:
        ValueError: no such archive, a paradigm that is unknown or not in it, a line that is no
            pair.
        OSError: the file cannot be read.
    """
    if path.suffix != ".zip":
        pairs = read_pairs(path)
        return [choice("", (pair.good, pair.bad), 0, pair.paradigm) for pair in pairs]
    items = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name in PARADIGMS if paradigms is None else paradigms:
                inside = f"{FOLDER}/{check_name('paradigm', name, PARADIGMS)}.jsonl"
                if inside not in archive.namelist():
                    raise ValueError(f"{path}: expected {inside} in it, found no such file")
                lines = utf8(archive.read(inside), f"{path}/{inside}").splitlines()
                for i, line in enumerate(lines, 1):
                    pair = parse_pair(line, f"{path}/{inside}, line {i}")
                    items.append(choice("", (pair.good, pair.bad), 0, name))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a whole zip archive ({error}); fetch it again") from None
    return items


PARADIGMS = (
    "adjunct_island",
    "anaphor_gender_agreement",
    "anaphor_number_agreement",
    "animate_subject_passive",
    "animate_subject_trans",
    "causative",
    "complex_NP_island",
    "coordinate_structure_constraint_complex_left_branch",
    "coordinate_structure_constraint_object_extraction",
    "determiner_noun_agreement_1",
    "determiner_noun_agreement_2",
    "determiner_noun_agreement_irregular_1",
    "determiner_noun_agreement_irregular_2",
    "determiner_noun_agreement_with_adj_2",
    "determiner_noun_agreement_with_adj_irregular_1",
    "determiner_noun_agreement_with_adj_irregular_2",
    "determiner_noun_agreement_with_adjective_1",
    "distractor_agreement_relational_noun",
    "distractor_agreement_relative_clause",
    "drop_argument",
    "ellipsis_n_bar_1",
    "ellipsis_n_bar_2",
    "existential_there_object_raising",
    "existential_there_quantifiers_1",
    "existential_there_quantifiers_2",
    "existential_there_subject_raising",
    "expletive_it_object_raising",
    "inchoative",
    "intransitive",
    "irregular_past_participle_adjectives",
    "irregular_past_participle_verbs",
    "irregular_plural_subject_verb_agreement_1",
    "irregular_plural_subject_verb_agreement_2",
    "left_branch_island_echo_question",
    "left_branch_island_simple_question",
    "matrix_question_npi_licensor_present",
    "npi_present_1",
    "npi_present_2",
    "only_npi_licensor_present",
    "only_npi_scope",
    "passive_1",
    "passive_2",
    "principle_A_c_command",
    "principle_A_case_1",
    "principle_A_case_2",
    "principle_A_domain_1",
    "principle_A_domain_2",
    "principle_A_domain_3",
    "principle_A_reconstruction",
    "regular_plural_subject_verb_agreement_1",
    "regular_plural_subject_verb_agreement_2",
    "sentential_negation_npi_licensor_present",
    "sentential_negation_npi_scope",
    "sentential_subject_island",
    "superlative_quantifiers_1",
    "superlative_quantifiers_2",
    "tough_vs_raising_1",
    "tough_vs_raising_2",
    "transitive",
    "wh_island",
    "wh_questions_object_gap",
    "wh_questions_subject_gap",
    "wh_questions_subject_gap_long_distance",
    "wh_vs_that_no_gap",
    "wh_vs_that_no_gap_long_distance",
    "wh_vs_that_with_gap",
    "wh_vs_that_with_gap_long_distance",
)
"""The rules, as the files are called."""
