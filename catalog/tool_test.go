package catalog

import "testing"

func TestRefusesTool(t *testing.T) {
	const second = "- id: s2\n  resource: https://s2\n  upstream: 127.0.0.1:2\n  http:\n"
	refuses(t, []refusal{
		{"method missing", with("    method: POST\n", ""), `6:5: "method" is missing`},
		{"method HEAD", with("POST", "HEAD"), "must be GET, POST"},
		{"method CONNECT", with("POST", "CONNECT"), "must be GET, POST"},
		{"method TRACE", with("POST", "TRACE"), "must be GET, POST"},
		{"method OPTIONS", with("POST", "OPTIONS"), "must be GET, POST"},
		{"method in lower case", with("POST", "post"), "must be GET, POST"},
		{"path relative", with("path: /t", "path: t"), `must start with "/"`},
		{"path with an empty segment", with("path: /t", "path: /a//t"), "no empty segment"},
		{"path with an escape", with("path: /t", "path: /a%2ft"), "only letters"},
		{"path with a parameter", with("path: /t", "path: /t;a"), "only letters"},
		{"path with a query", with("path: /t", "path: /t?a"), "only letters"},
		{"path with a fragment", with("path: /t", "path: /t#a"), "only letters"},
		{"path with a backslash", with("path: /t", `path: /a\t`), "only letters"},
		{"path with a line end", with("path: /t", `path: "/t\n"`), "only letters"},
		{"path with dots", with("path: /t", "path: /a/../t"), `no segment ".."`},
		{"path with a dot", with("path: /t", "path: /."), `no segment "."`},
		{"route twice", one("  - {tool: u, method: POST, path: /t}\n"), `9:35: POST /t is already`},
		{"route twice over servers", one(second + "  - {tool: u, method: POST, path: /t}\n"),
			`POST /t is already the tool "s/t": one listener serves all servers`},

		{"set name", one("    sets: [Write]\n"), `9:12: "Write": must match`},
		{"set twice", one("    sets: [a, a]\n"), `9:15: "a" is there twice in "sets"`},
		{"sets a string", one("    sets: a\n"), `"sets" must be a list`},
		{"timeout without unit", one("    timeout: 5\n"), "a duration with its unit"},
		{"timeout text", one("    timeout: soon\n"), "a duration with its unit"},
		{"timeout 0", one("    timeout: 0s\n"), "above 0"},
		{"timeout negative", one("    timeout: -1s\n"), "above 0"},
		{"timeout too long", one("    timeout: 1h1ms\n"), "at most 1h"},
		{"timeout too fine", one("    timeout: 1us\n"), "whole milliseconds"},
	})
}
