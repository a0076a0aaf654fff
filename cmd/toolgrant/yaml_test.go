package main

import (
	"strings"
	"testing"
	"time"
)

// A time without a unit is told which one it needs, quoted or not.
func TestYAMLDuration(t *testing.T) {
	for text, want := range map[string]string{
		"600": "for 600 seconds write 10m", `"600"`: "for 600 seconds write 10m", "90": "write 1m30s", "7200": "write 2h", "3661": "write 1h1m1s",
		"0": `"0" is not a time`, "-5": "whole seconds above zero", "60.5": "with a unit", "0x10": "with a unit", "1500ms": "whole seconds",
		"true": "must be text", "[10m]": "must be text, not a list",
	} {
		_, err := LoadConfig(writeConfig(t, leastConfig+"limits: {max_ttl: "+text+"}\n"))
		if err == nil || !strings.Contains(err.Error(), "limits.max_ttl: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	c, err := LoadConfig(writeConfig(t, leastConfig+`limits: {max_ttl: 1m30s, max_task: "2h"}`+"\n"))
	if err != nil || c.Limits.MaxTTL != 90*time.Second || c.Limits.MaxTask != 2*time.Hour {
		t.Errorf("%+v, %v", c, err)
	}
}
