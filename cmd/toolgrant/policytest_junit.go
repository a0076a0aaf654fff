package main

import (
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// What CI servers read of JUnit's XML: a suite for each file, and a case for each
// test in it (the schema that Jenkins and GitLab take).
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr"`
		Line    int           `xml:"line,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// junit is the run as JUnit's XML. What XML cannot have is written as U+FFFD.
func (run *testRun) junit() (string, error) {
	all := junitSuites{Name: "toolgrant policy test"}
	var whole time.Duration
	took := map[string]time.Duration{}
	for _, r := range run.results {
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != r.test.file {
			all.Suites = append(all.Suites, junitSuite{Name: r.test.file})
		}
		s := &all.Suites[len(all.Suites)-1]
		c := junitCase{Name: r.test.name, Class: r.test.file, File: r.test.file, Line: r.test.line, Time: junitTime(r.took)}
		if r.wrong != "" {
			c.Failure = &junitFailure{Message: r.wrong, Text: strings.Join(append([]string{r.at + ": " + r.wrong}, r.hints...), "\n")}
			s.Failures++
			all.Failures++
		}
		s.Cases = append(s.Cases, c)
		s.Tests++
		all.Tests++
		whole += r.took
		took[s.Name] += r.took
		s.Time = junitTime(took[s.Name])
	}
	all.Time = junitTime(whole)
	text, err := xml.MarshalIndent(all, "", "  ")
	return xml.Header + string(text) + "\n", err
}

func junitTime(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
