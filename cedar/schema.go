package cedar

import (
	"fmt"
	"maps"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

const namespace = "Toolgrant"

// Entity types, and the parent of the call actions.
const (
	agentType  cedargo.EntityType = namespace + "::Agent"
	groupType  cedargo.EntityType = namespace + "::AgentGroup"
	toolType   cedargo.EntityType = namespace + "::Tool"
	serverType cedargo.EntityType = namespace + "::ToolServer"
	setType    cedargo.EntityType = namespace + "::ToolSet"
	kindType   cedargo.EntityType = namespace + "::TaskKind"
	actionType cedargo.EntityType = namespace + "::Action"

	callParent = "call"
)

func actionUID(action string) cedargo.EntityUID {
	return cedargo.NewEntityUID(actionType, cedargo.String(action))
}

// SchemaText returns the schema that policies are validated against, as Cedar's
// schema language writes it (a .cedarschema file), for editors and for Cedar's
// other tools. It is a function of the catalogue and the manifests' parameters
// alone; nil: there is no manifest.
func SchemaText(c *catalog.Catalog, m *manifest.Set) ([]byte, error) {
	inputs, err := shapes(c)
	if err != nil {
		return nil, err
	}
	params, err := paramsShape(m)
	if err != nil {
		return nil, err
	}
	all, err := methods(c)
	if err != nil {
		return nil, err
	}
	text, err := newSchema(c, inputs, params, all).MarshalCedar()
	if err != nil {
		return nil, fmt.Errorf("writing the schema: %w", err)
	}
	return text, nil
}

// Members that an action's context may lack.
var (
	grantType  = ast.Attribute{Type: ast.Type("Grant"), Optional: true, Annotations: doc("absent: outside of any grant")}
	paramsType = ast.Attribute{Type: ast.Type("Params"), Optional: true, Annotations: doc("what the task was started with; absent: without a manifest")}
	retryType  = ast.Attribute{Type: ast.Type("Retry"), Optional: true, Annotations: doc("absent: it is no multi-round-trip retry")}
)

// newSchema is what question, in decide.go, builds requests for.
func newSchema(c *catalog.Catalog, inputs map[string]*shape, params *shape, methods map[string]*method) *schema.Schema {
	agent := ast.EntityType("Agent")
	task := ast.RecordType{
		"id":    {Type: ast.String()},
		"kind":  {Type: ast.String()},
		"owner": {Type: agent, Annotations: doc("who started the task")},
	}
	open := ast.RecordType{
		"id": task["id"], "kind": task["kind"], "owner": task["owner"],
		"ttl": {Type: ast.Long(), Annotations: doc("seconds to its deadline, rounded up")},
	}
	grant := ast.RecordType{
		"id":    {Type: ast.String()},
		"task":  {Type: ast.String(), Annotations: doc("id of its task")},
		"kind":  {Type: ast.String(), Annotations: doc("kind of its task")},
		"owner": {Type: agent, Annotations: doc("who started its task")},
		"ttl":   {Type: ast.Long(), Annotations: doc("seconds left, rounded down")},
		"age":   {Type: ast.Long(), Annotations: doc("seconds since its window began, rounded up")},
		"depth": {Type: ast.Long(), Annotations: doc("how often it was delegated")},
		"bound": {Type: ast.Bool(), Annotations: doc("only the holder of a key can use it")},
	}
	requester := ast.Attribute{Type: agent, Annotations: doc("who asks")}
	types := ast.CommonTypes{"Task": {Type: task}, "OpenTask": {Type: open}, "Grant": {Type: grant}}
	started := ast.Type("OpenTask")
	if len(params.attrs) > 0 {
		types["Params"] = ast.CommonType{Type: params.schemaType()}
		task["params"], grant["params"] = paramsType, paramsType
		fresh := maps.Clone(open)
		fresh["params"] = paramsType
		types["NewTask"], started = ast.CommonType{Type: fresh}, ast.Type("NewTask")
	}
	aboutStart := ast.RecordType{"requester": requester, "task": {Type: started}}
	aboutEnd := ast.RecordType{"requester": requester, "task": {Type: ast.Type("OpenTask")}}
	aboutGrant := ast.RecordType{
		"requester":   requester,
		"task":        {Type: ast.Type("Task")},
		"ttl":         {Type: ast.Long(), Annotations: doc("seconds of the whole window, rounded up")},
		"depth":       grant["depth"],
		"bound":       grant["bound"],
		"max_calls":   {Type: ast.Long(), Optional: true, Annotations: doc("the least of its budgets of calls; absent: any number")},
		"sums":        {Type: ast.Set(ast.String()), Annotations: doc("JSON Pointers of the arguments whose sum its budgets bound")},
		"constrained": {Type: ast.Bool(), Annotations: doc("its arguments are constrained")},
		"once":        {Type: ast.Bool(), Annotations: doc("it is for one call alone, whose arguments were given")},
	}
	aboutAnother := maps.Clone(aboutGrant)
	aboutAnother["agent"] = ast.Attribute{Type: agent, Annotations: doc("who would hold the grant; the principal is who asks")}

	appliesTo := func(resource cedargo.EntityType, context ast.IsType) *ast.AppliesTo {
		return &ast.AppliesTo{
			Principals: []ast.EntityTypeRef{agent},
			Resources:  []ast.EntityTypeRef{ast.EntityType(resource)},
			Context:    context,
		}
	}
	ns := ast.Namespace{
		CommonTypes: types,
		Entities: ast.Entities{
			"Agent": {
				ParentTypes: []ast.EntityTypeRef{"AgentGroup"},
				Shape: ast.RecordType{
					"issuer":  {Type: ast.String(), Annotations: doc("alias of who vouches for it")},
					"subject": {Type: ast.String(), Annotations: doc("as the issuer names it")},
				},
				Tags:        ast.String(),
				Annotations: doc("who calls tools or asks for grants; its id is ISSUER/SUBJECT"),
			},
			"AgentGroup": {ParentTypes: []ast.EntityTypeRef{"AgentGroup"}},
			"TaskKind":   {},
			"Tool": {
				ParentTypes: []ast.EntityTypeRef{"ToolServer", "ToolSet"},
				Annotations: doc("its id is SERVER/TOOL"),
			},
			"ToolServer": {},
			"ToolSet":    {},
		},
		Actions: ast.Actions{
			grants.ActionStartTask: {AppliesTo: appliesTo("TaskKind", aboutStart)},
			grants.ActionEndTask:   {AppliesTo: appliesTo("TaskKind", aboutEnd)},
			grants.ActionGrant:     {AppliesTo: appliesTo("Tool", aboutGrant)},
			grants.ActionAskFor:    {AppliesTo: appliesTo("Tool", aboutAnother), Annotations: doc("ask for a grant of another agent; grant must permit it too")},
			grants.ActionRevoke:    {AppliesTo: appliesTo("Tool", aboutGrant)},
			callParent:             {Annotations: doc("the parent of every tool's call action")},
		},
	}
	for i := range c.Servers {
		for _, t := range c.Servers[i].Tools {
			context := ast.RecordType{
				"requester": requester,
				"grant":     grantType,
				"input":     {Type: inputs[t.ID].schemaType(), Optional: true, Annotations: doc("absent: not known")},
			}
			if t.Server.MCP != nil {
				context["revision"], context["retry"] = revisionType, retryType
			}
			ns.Actions[cedargo.String(grants.ActionCall+t.ID)] = ast.Action{
				Parents:   []ast.ParentRef{ast.ParentRefFromID(callParent)},
				AppliesTo: appliesTo("Tool", context),
			}
		}
	}
	addMCP(&ns, methods, requester, appliesTo)
	return schema.NewSchemaFromAST(&ast.Schema{Namespaces: ast.Namespaces{namespace: ns}})
}

func doc(text string) ast.Annotations {
	if text == "" {
		return nil
	}
	return ast.Annotations{"doc": cedargo.String(text)}
}
