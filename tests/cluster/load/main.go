// Requests at a steady rate, whatever becomes of those before, each on a connection of its own; at the end one line of
// JSON that says what became of them. It ends when the last is answered or has waited for too long.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// The outcome of one request.
type outcome struct {
	// When it began, in seconds after the first.
	At float64 `json:"at"`
	// From its start to the last byte of the answer, connecting and looking up the name included, in milliseconds.
	Took float64 `json:"took"`
	// The status, or why there was none.
	Status string `json:"status"`
}

func one(client *http.Client, url string) string {
	answer, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err.Error()
	}
	return fmt.Sprint(answer.StatusCode)
}

func main() {
	count := flag.Int("count", 100, "how many requests")
	rate := flag.Int("rate", 50, "how many in a second")
	patience := flag.Duration("patience", 10*time.Second, "how long one may take")
	flag.Parse()
	client := &http.Client{Timeout: *patience, Transport: &http.Transport{DisableKeepAlives: true}}
	outcomes := make([]outcome, *count)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range outcomes {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(*rate))))
		all.Go(func() {
			start := time.Now()
			status := one(client, flag.Arg(0))
			outcomes[i] = outcome{start.Sub(begin).Seconds(), float64(time.Since(start).Microseconds()) / 1000, status}
		})
	}
	all.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(outcomes); err != nil {
		panic(err)
	}
}
