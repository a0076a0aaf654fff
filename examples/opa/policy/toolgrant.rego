# What examples/reports/policies say in Cedar, in Rego: who may start work, what
# that work may be granted, and what passes through Envoy.
#
# The broker and the call door ask for data.toolgrant.decide. They refuse whatever
# is not one well-formed answer to each question, and so does a question for which
# this document is undefined: nothing is permitted by mistake.
package toolgrant

# An answer for each question, in their order: an array, never a set. Each says
# whose it is by n, and names the policies that made it, for the audit log.
decide := {"answers": [answer |
	some question in input.questions
	policies := object.get(permit, question.n, set())
	answer := {
		"n": question.n,
		"allow": count(policies) > 0,
		"policies": policies,
		# No rule below looks at how old a grant is or at what is left of it, so that
		# an answer is good for longer than the second in which it was given. Leave this
		# out of a policy that does.
		"cacheable_for": 5,
	}
]}

# An orchestrator runs its own tasks. The principal is who asks; the condition
# keeps one orchestrator from ending the tasks of another, or from revoking what
# was granted in them. For start_task the owner is whoever starts it.
permit[question.n] contains "orchestrators-run-their-tasks" if {
	some question in input.questions
	question.action in {"start_task", "end_task", "revoke"}
	"orchestrators" in question.principal.groups
	question.task.owner.id == question.principal.id
}

# For a monthly report, and for nothing else, an agent of the group reporting may
# be granted the export, for at most ten minutes.
permit[question.n] contains "reporting-may-export" if {
	some question in input.questions
	question.action == "grant"
	"reporting" in question.principal.groups
	question.tool.id == "reports/export"
	question.task.kind == "monthly-report"
	question.grant.ttl <= 600
}

# Inside a live grant, a call passes. The grant itself (its window, tool,
# constraints and budgets) has been checked by then, and no policy can widen it.
# `question.grant` is what asks for one: without it the rule would permit every
# tool to everybody.
permit[question.n] contains "inside-a-grant" if {
	some question in input.questions
	startswith(question.action, "call:")
	question.grant
}
