package audit

import "github.com/toolgrant/toolgrant/grants"

// explanations has words for each reason of either door, for the operator.
var explanations = map[grants.Reason]explanation{
	grants.None: {
		"all that is required was there: whoever asked was verified, policy permits it, and a call was inside a live grant's window or needs none",
		"nothing",
	},

	grants.Malformed: {
		"the request could be read in more than one way, or in none: broken or doubled JSON, a parameter or header that comes twice, bytes that are not UTF-8, a number beyond its bounds",
		"look at what the client sends: grants and policy have no part in it. Again and again from one agent, it may be trying to have the tool read something else than what was checked",
	},
	grants.Mismatch: {
		"parts of the request disagree, or it does not fit the tool: a method, path, query, header or body that the catalogue does not declare",
		"compare the request with the tool's entry in the catalogue, and Envoy's configuration with what toolgrant envoy prints from that catalogue",
	},
	grants.TooLarge: {
		"the request or a part of it is over a stated size, or Envoy sent only a part of its body",
		"have the client send less; if the tool needs more, compare the body limit in Envoy's configuration with the one that toolgrant prints",
	},
	grants.Encoding: {
		"the body has a content type or a content coding that is not read: a tool's is application/json in UTF-8, not compressed",
		"mend the client's content-type and content-encoding headers",
	},
	grants.UnknownTool: {
		"neither the route nor the catalogue knows the tool",
		"check its name, SERVER/TOOL, and that Envoy and toolgrant run with the same catalogue",
	},
	grants.Unrepresentable: {
		"an argument has no exact value in the policy language, such as a decimal with more than four places, and policy never decides on an input that it does not see whole",
		"have the agent leave it out or round it; if no policy needs to see it, list the argument as opaque in the catalogue",
	},

	grants.NoCredential: {
		"no credential was presented: at a tool, neither a grant's token nor an identity token; at the broker, no identity token",
		"a client that looks for its authorization server begins in this way; any other must be told to send its token, in the header that the configuration names",
	},
	grants.Ambiguous: {
		"more than one credential was presented, or one in a place that is not read, so that nobody can say which one counts",
		"have the client, and each proxy before it, send one token in one header",
	},
	grants.UnknownSession: {
		"the MCP session that the message names is not known here: it was opened before toolgrant's last start, at another server, or never, or it was not used for a day",
		"nothing, mostly: a client starts a new session by itself; if it does not, have it send initialize without a session id",
	},
	grants.BadCredential: {
		"a credential was presented and not accepted: its form, type, issuer, audience or signature is wrong, its key is not one of ours any more, or its claims are not those of the grant in the table",
		"compare the token's header and claims (toolgrant token inspect, where the client is) with the configured issuers, audiences and keys. From a source that you do not know, take it for an attempt at forging one",
	},
	grants.ExpiredToken: {
		"the token is genuine, and its time is over",
		"the agent must ask again, or renew in time; if its work takes longer, it may ask for a longer time. A token that is used long after its end may have leaked: look who sent it",
	},
	grants.UnboundToken: {
		"the token is genuine, and was presented by another sender than it names, or is bound to a key that the sender did not prove to hold",
		"find out who sent it: it may be stolen, and then the grant should be revoked. If the agent is right, its certificate must name its subject",
	},
	grants.CredentialKind: {
		"the token is genuine and meant for the other door: an identity token for the broker was shown to a tool, or one for a tool to the broker",
		"have the agent send the broker's identity token to the broker only, and grant tokens to tools; the audience of each is in its aud",
	},

	grants.NoGrant: {
		"the caller is known, holds no grant for this tool, and no policy permits the call without one",
		"the agent should ask the broker for a grant, for its task. If the tool should need none, as reads at start-up may, permit it as baseline in policy",
	},
	grants.UnknownGrant: {
		"the grant is not in the table: it was never issued, or forgotten a minute after its end, or issued before a restart of a store that keeps nothing; when revoking, it may also be somebody else's",
		"after such a restart agents ask again. Otherwise a genuine token for a grant that was never issued means that a signing key is in other hands: replace it, and look for the record of the grant's issue",
	},
	grants.NotYet: {
		"the grant's window has not begun",
		"compare the clocks of the nodes: they are more than 5 seconds apart",
	},
	grants.Expired: {
		"the grant's window is over: the time for which it was given has passed",
		"the agent must ask again, or renew in time; if its work takes longer, it may ask for a longer time. Calls that go on long after the end are worth a look at what the agent does",
	},
	grants.Revoked: {
		"the grant was revoked: by its id, or together with all grants of its agent or of its tool",
		"an earlier record of kind revoke says who asked for that; find out why before the agent gets another",
	},
	grants.TaskEnded: {
		"the task has ended, by its owner, by its deadline or because nobody gave a sign of life, and all of its grants with it",
		"more work needs another task. An agent that goes on calling after its task's end is worth a look at what it does",
	},
	grants.Superseded: {
		"the grant was renewed, and another stands in its place",
		"the client should use the newest token that it got. If it does, somebody else has the old one",
	},
	grants.ToolChanged: {
		"the tool in the catalogue is not the one that was granted: its description has another digest",
		"if the change was meant, agents ask again; if it was not, find out who changed the tool or the catalogue",
	},
	grants.PolicyChanged: {
		"policies or manifests have changed since the grant was issued, and those of today would not grant it",
		"if the agent should keep it, mend those of the revision below; the record of the grant's issue has the revision that permitted it",
	},

	grants.WrongTool: {
		"the grants of the token are for other tools than the one that was called, and no policy permits the call without one",
		"the agent should ask for a grant of this tool, for its task. Tool after tool, an agent that does this is trying what it can reach",
	},
	grants.ConstraintBroken: {
		"the arguments break a constraint of the grant, or an argument that a budget counts is absent or negative",
		"compare the call with the constraints that the grant was asked with: the agent must stay inside them, or ask for a grant that permits it",
	},
	grants.BudgetSpent: {
		"nothing, or not enough for this call, is left of a budget of the grant",
		"asking again and renewing refill nothing, since the budget is the task's. More needs another task, or a larger budget when the task's first grant is asked for",
	},
	grants.Policy: {
		"policy does not permit it: a policy forbids it, or none permits it",
		"look at the policies named below. If none is, no permit fits this principal, action, tool and context: see what was asked above, and the kind, the owner and the time of the task",
	},
	grants.Manifest: {
		"the task's kind has a manifest, and what was asked is not inside it: another tool, another time, or other parameters than the manifest of today has",
		"if the task should have it, change the manifest; \"toolgrant manifest explain\" prints what a kind of task gets. A task that was started before its manifest changed is best started anew",
	},
	grants.PolicyError: {
		"a policy could not be evaluated, and since it might have been the one that forbids, the answer is no",
		"mend the policies named below: most often one reads an optional attribute without testing with has that it is there",
	},

	grants.UnknownTask: {
		"there is no such task, or it is not the asker's: both are answered alike",
		"check the task's id and who its owner and agents are. Many of these from one caller are guesses",
	},
	grants.BadTTL: {
		"the asked time cannot be granted: it is no positive number of seconds, or the task or the identity token ends too soon",
		"have the caller ask for another time, show a fresher identity token, or start a task that lasts longer",
	},
	grants.BadRequest: {
		"the parameters of the request do not fit together",
		"the caller was told which: compare them with the description of the API",
	},
	grants.Conflict: {
		"another request was faster, or the same budget was asked for with another limit than the task's first",
		"to ask again is right after a lost race; a budget must be asked for with the limit that the task has",
	},

	grants.Limit: {
		"a stated bound is reached: requests in a second, the open tasks of an owner, the live grants of an agent, or what the store holds",
		"find out who asks so much (the records before this one say it); if the load is meant, raise the limit in the configuration",
	},
	grants.NotFresh: {
		"this node's view of the grants was older than it may be, or had not reached what the token needs, so nothing that needs a grant was allowed",
		"look at /readyz and at the way between this node and the store",
	},
	grants.CannotRecord: {
		"the audit log could not be written, and what is not on record is not allowed",
		"look at the disk, at the place and the mode of the file, and at what the server logged of it",
	},
	grants.Undecided: {
		"no decision could be made: a time-out, a fault, or a policy engine or store without an answer",
		"search what the server logged for this decision id",
	},
}
