package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// end to end, through real Envoy and a `toolgrant serve`
const (
	tokens   = "cmd/toolgrant.TestThreatsToToken"
	requests = "cmd/toolgrant.TestThreatsToRequest"
	messages = "cmd/toolgrant.TestThreatsToMCP" // of requests on MCP routes
)

// threatRows says which tests hold each row of the threat list that this version
// answers: PACKAGE.FUNCTION, with blanks between. Rows of what is not there yet
// (DPoP, a cluster, delegation) are not in it.
var threatRows = map[string]string{
	"T01": tokens + " token.TestT01AlgNone token.TestWycheproofJWS",
	"T02": tokens + " token.TestT02PublicKeyAsSecret token.TestWycheproofJWS",
	"T03": tokens + " token.TestT03AlgSwapped",
	"T04": tokens + " token.TestT04EmbeddedKey token.TestWycheproofJWS",
	"T05": tokens + " cmd/toolgrant.TestRetiredKey token.TestT05KeyID token.TestB13T05KeyTakenAway identity.TestT05UnknownKIDHastens",
	"T06": tokens + " token.TestT06Critical",
	"T07": tokens + " token.TestT07OtherSerialisations token.FuzzVerify",
	"T08": tokens + " token.TestT08Size",
	"T09": tokens + " token.TestT09T10Times",
	"T10": tokens + " token.TestT09T10Times",
	"T11": tokens + " token.TestT11AudienceIssuer",
	"T12": tokens + " token.TestT12Type",
	"T13": tokens + " cmd/toolgrant.TestCrossProduct cmd/toolgrant.TestTokenOfAnotherCertificate cmd/toolgrant.TestTokenAndTableMustAgree authz.TestLiveMutualTLS",
	"T14": tokens + " token.TestT14Claims",
	"T15": tokens + " authz.TestLiveHTTP1 authz.TestLiveHTTP2",
	"T16": tokens + " token.TestT16Respelt token.TestWycheproofJWS",

	"R01": requests + " " + messages + " strictjson.TestParseRefuses",
	"R02": requests + " " + messages + " strictjson.TestParseRefuses strictjson.TestFoldIsSimpleFolding",
	"R03": requests + " " + messages + " strictjson.TestParseRefuses strictjson.TestJSONTestSuite",
	"R04": requests + " " + messages + " strictjson.TestParseRefuses strictjson.TestJSONTestSuite",
	"R05": requests + " " + messages + " strictjson.TestLimits strictjson.TestParseIsLinear",
	"R06": requests + " " + messages + " cmd/toolgrant.TestThreatsToMCPPartialBody cmd/toolgrant.TestPartialBody cmd/toolgrant.TestHalfARequest authz.TestLiveHTTP1",
	"R07": requests + " " + messages + " cmd/toolgrant.TestWhatReachesTheTool authz.TestLiveHTTP1 authz.TestLiveHTTP2",
	"R08": requests + " " + messages,
	"R09": requests + " " + messages,
	"R10": requests + " " + messages + " cmd/toolgrant.TestThreatsToMCPPipelined cmd/toolgrant.TestTrailersDoNotReachTheTool authz.TestLiveHTTP1 authz.TestLiveHTTP2 broker.TestTwoReadings",
	"R11": requests + " " + messages + " authz.TestLiveHTTP1",
	"R12": requests + " " + messages + " envoy.TestLive authz.TestLiveHTTP1",
	"R13": requests + " " + messages + " authz.TestLiveHTTP1 authz.TestLiveHTTP2",
	"R14": messages + " authz/mcp.TestMethodAndName authz/mcp.TestArgumentHeaders",
	"R15": messages + " cmd/toolgrant.TestThreatsToMCPTasks authz/mcp.TestKinds authz.TestMessagesAreDecided",
	"R16": messages + " authz.TestSessionsAreTheirOpeners surface.TestSessionsAreTheirAgents",
	"R17": messages + " cmd/toolgrant.TestThreatsToMCPStreams envoy.TestLiveStreams",
	"R18": messages + " authz/mcp.TestHostsAndOrigins broker.TestHostAndOrigin",

	"B02": "broker.TestB02ClientWithoutSubject",
	"B03": "broker.TestB03OtherAudienceOtherClient broker.TestB03ClientsTokenAtTheAPI",
	"B04": "broker.TestB04RenewalNeverWider broker.TestB04WiderIsRefused broker.TestB04NeverWiderThanTheManifest broker.TestB04Parameters broker.TestBudgetsOnlyNarrow manifest.TestClosed cmd/toolgrant.TestManifestThroughEnvoy",
	"B05": "broker.TestB05Actors",
	"B06": "broker.TestB06Times broker.TestB06ManifestTimes broker.TestB06RenewForEver manifest.TestAdmitsWithinMaxDurationOfTheStart",
	"B07": "broker.TestAgentsRate broker.TestOneTokensFlood broker.TestJunk broker.BenchmarkFlood grants.TestMemoryBounds grants.TestMemoryGrantsPerAgent grants.TestMemoryTasksPerOwner grants.TestMemoryGrantsPerRequester",
	"B08": "broker.TestB08UnknownAndForeign cmd/toolgrant.TestForeignAndUnknownAreAlike broker.TestListsTellNothing",
	"B09": "broker.TestB09RevokeWhileCallsRun cmd/toolgrant.TestNoLateAllows cmd/toolgrant.TestDetectorCatchesAStaleRead",
	"B10": "grants.TestTheEarlierClockEndsIt grants.TestNewViewCountsOn cmd/toolgrant.TestTimePassesWhileRecording",
	"B11": "broker.TestB11Forms broker.FuzzForm",
	"B12": "broker.TestB12ClientAuthentication identity.TestB12Methods identity.TestB12Assertions identity.TestB12Replay",
	"B13": "token.TestB13KnownKeys token.TestB13T05Rotation token.TestB13T05KeyTakenAway token.TestOpenKeysRefuses cmd/toolgrant.TestRetiredKey",
	"B14": "broker.TestB14Reuse broker.TestB14EveryFieldCounts broker.TestB14Manifests pdp.TestCacheTakesNoOther cmd/toolgrant.TestCrossProduct cmd/toolgrant.TestReuse token.TestKnownTokenElsewhere",

	"P01": "cedar.TestBrokenReload cedar.TestCorpusReload cedar.TestBrokenManifestReload cmd/toolgrant.TestCorpusOnHangup cmd/toolgrant.TestReloadWhileServing cmd/toolgrant.TestManifestReload",
	"P02": "cedar.TestDirectoryLost cedar.TestDirectory cedar.TestManifestsLost cmd/toolgrant.TestReloadWhileServing",
	"P03": "cedar.TestErringPolicy cedar.TestMissing cedar.TestCorpus cmd/toolgrant.TestErringForbidDenies",
	"P04": "cedar.TestReloadWhileDeciding cedar.TestManifestReloadWhileDeciding cmd/toolgrant.TestSweepWhileCalling",
	"P05": "cedar.TestRefused cedar.TestBounds cedar.TestRoutes cedar.FuzzLoad cmd/toolgrant.TestSlowPolicyDenies cedar.BenchmarkPathological",

	"O01": "cmd/toolgrant.TestBrokenAuthzAllowsNothing cmd/toolgrant.TestServerGoneStaysClosed cmd/toolgrant.TestFaultyHandlersStayClosed",
	"O07": "cmd/toolgrant.TestFullDisk audit.TestFullDisk cmd/toolgrant.TestNoRecordNoCall",
	"O08": "cmd/toolgrant.TestFewFilesAndAFlood cmd/toolgrant.TestLittleMemory broker.TestFewFiles",
	"O09": "cmd/toolgrant.TestFloodsOfConnections cmd/toolgrant.TestFloodsOfStreams broker.TestSlowHeaders broker.TestIdleConnections broker.TestRapidReset authz.TestFloods authz.TestMessageBound authz.TestIdleConnections authz.TestSilentConnections authz.TestLiveIdleConnections",
	"O10": "cmd/toolgrant.TestPortsForOperators authz.TestHealthAlone",

	"U01": "audit.TestEveryFieldIsCut audit.TestAppendString audit.FuzzAppend audit.TestSignalsEscape cmd/toolgrant.TestLogPrints cmd/toolgrant.TestSignalsPrint cmd/toolgrant.TestHostileTextsThroughBothDoors",
	"U03": "cmd/toolgrant.TestSecretsStayPut token.TestKeysDoNotPrint strictjson.TestErrorsHoldNoValues",
}

// TestEveryThreatRowHasItsTest: the table above is whole, and names tests that are
// there.
func TestEveryThreatRowHasItsTest(t *testing.T) {
	var rows []string
	for _, group := range []struct {
		letter   string
		from, to int
	}{{"T", 1, 16}, {"R", 1, 18}, {"B", 2, 14}, {"P", 1, 5}, {"O", 1, 1}, {"O", 7, 10}, {"U", 1, 1}, {"U", 3, 3}} {
		for n := group.from; n <= group.to; n++ {
			rows = append(rows, fmt.Sprintf("%s%02d", group.letter, n))
		}
	}
	slices.Sort(rows)
	if have := slices.Sorted(maps.Keys(threatRows)); !slices.Equal(have, rows) {
		t.Errorf("the table has the rows %v", have)
	}
	tests := testFunctions(t, filepath.Join("..", ".."))
	for row, names := range threatRows {
		if names == "" {
			t.Errorf("%s has no test", row)
		}
		for name := range strings.FieldsSeq(names) {
			if !tests[name] {
				t.Errorf("%s: there is no %s", row, name)
			}
		}
	}
}

// testFunctions are the tests, benchmarks and fuzz targets below root, as
// PACKAGE.FUNCTION.
func testFunctions(t *testing.T, root string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() {
			if file != root && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, "_test.go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range parsed.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || f.Name.Name == "TestMain" {
				continue
			}
			for _, kind := range []string{"Test", "Benchmark", "Fuzz"} {
				if strings.HasPrefix(f.Name.Name, kind) {
					found[path.Clean(filepath.ToSlash(dir))+"."+f.Name.Name] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
