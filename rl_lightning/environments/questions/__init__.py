"""Tasks of questions and answers from a file or from a data set of the Hugging Face hub.

May import pyarrow, the package datasets, `sandbox`, and of this package the base classes and hashes. Main exports:
`QuestionFile`, the task, and its settings `Questions`. Rows are read by `rows`, their columns by `cells`, the answers tried by
`checks`; `writer` puts what can be used into an `index` on disk, which the task reads.
"""

from rl_lightning.environments.questions.settings import Questions
from rl_lightning.environments.questions.task import QuestionFile

__all__ = ["QuestionFile", "Questions"]
