package serving

import (
	"log/slog"
	"strings"
	"sync"
	"time"
)

// logInterval is how often the errors of net/http are logged.
const logInterval = 10 * time.Second

// errorLog receives the lines of net/http's ErrorLog. A client can cause one with
// each connection, so those of a kind are counted and logged at intervals, with
// the last of them. A handler's panic is logged at once.
type errorLog struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[string]*kind // not logged yet
}

type kind struct {
	count int
	last  string
}

// Write takes one line, as [log.Logger] writes it.
func (e *errorLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.HasPrefix(text, "http: panic serving") || strings.HasPrefix(text, "http2: panic serving") {
		e.log.Error(text)
		return len(line), nil
	}
	words := strings.SplitN(text, " ", 4) // the first three come from net/http, not from a client
	name := strings.Join(words[:min(len(words), 3)], " ")
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.kinds) == 0 {
		time.AfterFunc(logInterval, e.tell)
	}
	if e.kinds[name] == nil {
		e.kinds[name] = new(kind)
	}
	e.kinds[name].count++
	e.kinds[name].last = text
	return len(line), nil
}

func (e *errorLog) tell() {
	e.mu.Lock()
	kinds := e.kinds
	e.kinds = make(map[string]*kind)
	e.mu.Unlock()
	for _, kind := range kinds {
		e.log.Warn("connections failed", "count", kind.count, "within", logInterval, "last", kind.last)
	}
}
