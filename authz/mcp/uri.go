package mcp

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Policy sees the text of a URI, and a server what its parser makes of it: the
// TypeScript SDK reads new URL(uri), Python's 1.x pydantic's AnyUrl, 2.x decodes
// what matches a template, and the Go SDK takes the text. So a URI is let through
// only in the form that all of them leave as it is (WHATWG URL, "URL parsing";
// RFC 3986, Section 6.2.2). What servers find behind it, such as a link in a file
// system, is theirs.

// checkURI refuses a URI that is not in its one form.
func checkURI(text, where string) *Refusal {
	wrong := wrongText(text)
	if wrong == "" {
		wrong = wrongPlace(text)
	}
	return notNormal(where, wrong)
}

// checkTemplate is checkURI for a URI or a template of URIs (RFC 6570). A template
// is compared as a text and not parsed, so that an expression may stand for a
// host, too.
func checkTemplate(text, where string) *Refusal {
	plain := expression.ReplaceAllLiteralString(text, "x")
	if plain == text {
		return checkURI(text, where)
	}
	return notNormal(where, wrongText(plain))
}

func notNormal(where, wrong string) *Refusal {
	if wrong == "" {
		return nil
	}
	return malformed(CodeParams, "%s is not in the one form in which every server reads a URI alike: %s", where, wrong)
}

var (
	expression  = regexp.MustCompile(`\{[+#./;?&]?[A-Za-z0-9_.,:*-]+\}`)
	schemeForm  = regexp.MustCompile(`^[a-z][a-z0-9+.-]*$`)
	domainForm  = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)
	regName     = regexp.MustCompile(`^[A-Za-z0-9._~!$&'()*+,;=%-]+$`) // RFC 3986, Section 3.2.2; escapes are looked at by wrongEscape
	driveLetter = regexp.MustCompile(`^/[A-Za-z]:`)
	numberEnd   = regexp.MustCompile(`(^|\.)([0-9]+|0x[0-9a-f]*)$`) // WHATWG URL, "ends in a number checker"
)

// special has the schemes that new URL reads by other rules than the rest, and
// their default ports (WHATWG URL, "special scheme").
var special = map[string]string{"http": "80", "https": "443", "ws": "80", "wss": "443", "ftp": "21", "file": ""}

// parts are those of a URI, without the scheme.
type parts struct {
	authority, path, query, fragment string
	hasAuthority, hasQuery, hasFrag  bool
}

func split(rest string) (p parts) {
	rest, p.fragment, p.hasFrag = strings.Cut(rest, "#")
	rest, p.query, p.hasQuery = strings.Cut(rest, "?")
	if p.path, p.hasAuthority = strings.CutPrefix(rest, "//"); p.hasAuthority {
		end := strings.IndexByte(p.path+"/", '/')
		p.authority, p.path = p.path[:end], p.path[end:]
	}
	return p
}

// wrongText says what is wrong with a URI's text, and what to write; "": nothing.
func wrongText(text string) string {
	if strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("\"<>\\^`{|}", c) }) {
		return "it has visible ASCII alone, and no \"<>\\^`{|}: write other characters as %XX of their UTF-8"
	}
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok || !schemeForm.MatchString(scheme) || rest == "" {
		return "it begins with a scheme in lower case, a colon, and something behind it"
	}
	if wrong := wrongEscape(text); wrong != "" {
		return wrong
	}
	p := split(rest)
	if strings.Contains(p.fragment, "#") || p.hasFrag && p.fragment == "" || p.hasQuery && p.query == "" {
		return "a ? and a # have something behind them, and there is one # at most: write others as %23"
	}
	// Also behind ? and #: a server that matches a template may take those for
	// characters of a name.
	segments := strings.FieldsFunc(rest, func(c rune) bool { return c == '/' || c == '?' || c == '#' })
	if slices.Contains(segments, ".") || slices.Contains(segments, "..") {
		return "it has no segments . and ..: write the path that they lead to"
	}
	if strings.Contains(p.path, "//") {
		return "its path has no empty segments: write one / for //"
	}
	return ""
}

// wrongEscape lets those escapes through that a reader who decodes, once, can not
// take for something else than one who does not.
func wrongEscape(text string) string {
	var decoded strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '%' {
			if i+2 >= len(text) || !upperHex(text[i+1]) || !upperHex(text[i+2]) {
				return "a % begins an escape of two digits of 0-9A-F: write %25 for the character itself"
			}
			n, _ := strconv.ParseUint(text[i+1:i+3], 16, 8) // two hex digits
			c, i = byte(n), i+2
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0:
				return "letters, digits and -._~ are not escaped: write them as they are"
			case c == '/' || c == '\\':
				return "it has no escaped / or \\: servers take them for a /"
			}
		}
		decoded.WriteByte(c)
	}
	if s := decoded.String(); !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return "its escapes are of UTF-8, and of no control characters"
	}
	return ""
}

func upperHex(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' }

// wrongPlace is wrongText for what is in front of the path, and what goes with a
// scheme.
func wrongPlace(text string) string {
	scheme, rest, _ := strings.Cut(text, ":")
	p := split(rest)
	port, isSpecial := special[scheme]
	switch {
	case isSpecial && (!p.hasAuthority || p.path == ""):
		return scheme + ":// is followed by a host, which file may leave away, and a path that begins with /"
	case isSpecial && strings.Contains(p.query, "'"):
		return "its query has no ': write %27"
	case scheme == "file" && p.authority != "" && driveLetter.MatchString(p.path):
		return "in front of a drive's letter, file has no host: write file:///" // pydantic drops it
	case p.authority == "": // of file, and of schemes of which nothing is known
		if isSpecial && scheme != "file" {
			return scheme + ":// is followed by a host"
		}
		return ""
	case strings.Contains(p.authority, "@"):
		return "it has no user: leave away what is before the @ of the host"
	}
	host, hostPort, hasPort := p.authority, "", false
	if end := strings.LastIndexByte(host, ']') + 1; strings.Contains(host[end:], ":") {
		i := end + strings.IndexByte(host[end:], ':')
		host, hostPort, hasPort = host[:i], host[i+1:], true
	}
	if hasPort {
		n, err := strconv.ParseUint(hostPort, 10, 16)
		if err != nil || strconv.FormatUint(n, 10) != hostPort || hostPort == port || scheme == "file" {
			return "a port is a number up to 65535 without leading zeros, not the scheme's own, and file has none: write it so, or leave it away with its colon"
		}
	}
	return wrongHost(scheme, host, isSpecial)
}

func wrongHost(scheme, host string, isSpecial bool) string {
	if six, ok := strings.CutPrefix(host, "["); ok {
		six, ok = strings.CutSuffix(six, "]")
		if addr, err := netip.ParseAddr(six); !ok || err != nil || !addr.Is6() || addr.Is4In6() || addr.Zone() != "" || addr.String() != six {
			return "an IPv6 address is in brackets, and in the form of RFC 5952, without a zone or an IPv4 address in it"
		}
		return ""
	}
	if !isSpecial {
		if !regName.MatchString(host) {
			return "its host has letters, digits, -._~!$&'()*+,;= and escapes alone"
		}
		return ""
	}
	// Of an xn-- label it depends on a parser's tables whether it is one.
	if !domainForm.MatchString(host) || strings.HasPrefix(host, "xn--") || strings.Contains(host, ".xn--") || scheme == "file" && host == "localhost" {
		return "its host is a name in lower case, of a-z0-9_- and no xn--, without a dot at its end; for file://localhost/ write file:///"
	}
	if _, err := netip.ParseAddr(host); err != nil && numberEnd.MatchString(host) { // which takes no leading zeros
		return "a host whose last label is a number is an IPv4 address: write four decimal numbers"
	}
	return ""
}
