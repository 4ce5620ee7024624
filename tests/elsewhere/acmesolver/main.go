// What cert-manager puts into a pod to answer an HTTP-01 challenge. Its own command isn't published as a Go module.
package main

import (
	"flag"
	"os"

	"github.com/cert-manager/cert-manager/pkg/issuer/acme/http/solver"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
)

func main() {
	answers := &solver.HTTP01Solver{}
	flag.IntVar(&answers.ListenPort, "listen-port", 8089, "where it listens")
	flag.StringVar(&answers.Domain, "domain", "", "the name that is proven")
	flag.StringVar(&answers.Token, "token", "", "the challenge's token")
	flag.StringVar(&answers.Key, "key", "", "what is answered")
	flag.Parse()
	logf.InitLogs()
	defer logf.FlushLogs()
	if err := answers.Listen(logf.Log); err != nil {
		logf.Log.Error(err, "ended")
		os.Exit(1)
	}
}
