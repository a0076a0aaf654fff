// Validates Cedar policies by the reference implementation, @cedar-policy/cedar-wasm.
//
// stdin: JSON Lines, {"schema": TEXT, "policies": TEXT}, both in Cedar's own syntax.
// stdout: JSON Lines, for each of them {"errors": [TEXT], "refused": [TEXT]}: errors
// are of what cannot be read, and refused is the ids of the policies (policy0, by
// position) that do not fit the schema, each with why.
//
// Imports are found where Node.js looks for them, beside this file.
import { createInterface } from "node:readline";
import { validate } from "@cedar-policy/cedar-wasm/nodejs";

for await (const line of createInterface({ input: process.stdin })) {
  const { schema, policies } = JSON.parse(line);
  const answer = validate({ validationSettings: { mode: "strict" }, schema, policies: { staticPolicies: policies } });
  const out = { errors: [], refused: [] };
  if (answer.type === "success") {
    out.refused = answer.validationErrors.map((e) => `${e.policyId} ${e.error.message}`);
  } else {
    out.errors = answer.errors.map((e) => e.message);
  }
  console.log(JSON.stringify(out));
}
