package grantstest

// Count is a number of checks.
type Count struct{ Allowed, Denied int }

func (c *Count) add(op Op) {
	if op.OK {
		c.Allowed++
	} else {
		c.Denied++
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Stats says what a history was worth: one without allowed checks inside a
// window, or without denied ones after it, proves nothing.
type Stats struct {
	Starts, Issues, Revokes, Ends int // acknowledged
	Unknown                       int // ops of any kind that ended in an error

	Live     Count // checks surely inside a live grant for their whole length
	Late     Count // checks surely after the grant's end (expiry, revoke, task end)
	Edge     Count // other checks of a grant: concurrent with its issue or end, of a spent budget, of a lost issue, or for what it does not grant
	Unissued Count // checks of a grant that no issue returned
	Baseline Count // checks without a grant

	// WrongDenials are the checks of Live.Denied: what surely held was refused.
	// A budget is taken for spent by every check that may have drawn on it
	// before the reply; where nodes draw shares of more than one call, what is
	// refused on a budget with calls left in another's share is here too.
	WrongDenials []Op
}

// Summarize counts a history. It runs in O(n log n).
func Summarize(history []Op) Stats {
	x := newIndex(history)
	var s Stats
	for _, op := range x.ops {
		if op.Unknown {
			s.Unknown++
			continue
		}
		switch op.Kind {
		case "start":
			s.Starts += count(op.OK)
		case "issue":
			s.Issues += count(op.OK)
		case "revoke":
			s.Revokes += count(op.OK)
		case "end":
			s.Ends += count(op.OK)
		case "check":
			g := x.grants[op.Grant]
			switch {
			case op.Grant == "":
				s.Baseline.add(op)
			case g == nil:
				s.Unissued.add(op)
			case x.surelyLive(op, g):
				s.Live.add(op)
				if !op.OK {
					s.WrongDenials = append(s.WrongDenials, op)
				}
			case x.surelyOver(op, g):
				s.Late.add(op)
			default:
				s.Edge.add(op)
			}
		}
	}
	return s
}
