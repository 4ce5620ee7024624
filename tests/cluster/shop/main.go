// An application of a shop: it answers with its name, asks another one first if it has been told so, and passes on what
// belongs to the request: its trace and its id. What it does itself is a span, which it sends to a collector (OTLP over HTTP).
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

type value struct {
	String string `json:"stringValue"`
}

type attribute struct {
	Key   string `json:"key"`
	Value value  `json:"value"`
}

type span struct {
	Trace  string `json:"traceId"`
	ID     string `json:"spanId"`
	Parent string `json:"parentSpanId"`
	Name   string `json:"name"`
	Kind   int    `json:"kind"`
	Start  string `json:"startTimeUnixNano"`
	End    string `json:"endTimeUnixNano"`
}

// The time in the form of OTLP.
func nano(at time.Time) string { return strconv.FormatInt(at.UnixNano(), 10) }

type application struct {
	name, next, collector string
	client                http.Client
}

func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start, id := time.Now(), fmt.Sprintf("%016x", rand.Uint64()|1)
	// version, trace, parent, flags (W3C Trace Context, section 3.2).
	context := strings.Split(r.Header.Get("traceparent"), "-")
	status, text := http.StatusOK, a.name
	if a.next != "" {
		if err := a.ask(r, context, id); err != nil {
			status, text = http.StatusBadGateway, a.name+": "+err.Error()
		}
	}
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
	if a.collector != "" && len(context) == 4 && strings.HasSuffix(context[3], "1") {
		// SERVER
		a.tell(span{context[1], id, context[2], "serve", 2, nano(start), nano(time.Now())})
	}
}

func (a *application) ask(r *http.Request, context []string, span string) error {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, a.next, nil)
	if err != nil {
		return err
	}
	if id := r.Header.Get("x-request-id"); id != "" {
		request.Header.Set("x-request-id", id)
	}
	if len(context) == 4 {
		context[0] = "00"
		request.Header.Set("traceparent", strings.Join([]string{context[0], context[1], span, context[3]}, "-"))
	}
	answer, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d", a.next, answer.StatusCode)
	}
	return nil
}

func (a *application) tell(it span) {
	service := attribute{"service.name", value{a.name + "-app"}}
	body, err := json.Marshal(map[string]any{"resourceSpans": []any{map[string]any{
		"resource":   map[string]any{"attributes": []attribute{service}},
		"scopeSpans": []any{map[string]any{"spans": []span{it}}},
	}}})
	if err != nil {
		log.Print(err)
		return
	}
	answer, err := a.client.Post(a.collector+"/v1/traces", "application/json", bytes.NewReader(body))
	if err != nil {
		log.Print(err)
		return
	}
	answer.Body.Close()
}

func main() {
	it := application{client: http.Client{Timeout: 5 * time.Second}}
	flag.StringVar(&it.name, "name", "app", "its name")
	flag.StringVar(&it.next, "next", "", "whom it asks before it answers: a URL")
	flag.StringVar(&it.collector, "collector", "", "who takes its spans, as http://HOST:PORT")
	port := flag.Int("port", 8080, "where it listens")
	flag.Parse()
	log.Fatal(http.ListenAndServe(fmt.Sprintf(":%d", *port), &it))
}
