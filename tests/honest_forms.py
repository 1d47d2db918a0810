"""Forms in which a policy may honestly give a right answer."""

from __future__ import annotations

FORMS = [
    *("  {} ", "\n{}\n", "{}\r\n", "**{}**", "\\boxed{{{}}}", "\\boxed{{\\text{{{}}}}}", "\\({}\\)", "`{}`"),
    *("```\n{}\n```", "```text\n{}\n```", "Answer: {}", "**Answer:** {}", "**Answer**: {}", "**Final Answer:** {}"),
    *("Final Answer: {}", "The answer is {}", "My answer is {}", "The final answer is: **{}**", "So the answer is {}"),
    *("Therefore, the answer is {}", "The correct answer is `{}`"),
]
